"""What is known of a guest's init: the value that a plan carries; ``booting`` finds it."""

from __future__ import annotations

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    InitKind = Literal["systemd", "sysvinit", "openrc-init", "busybox", "runit", "other"]


class Init(Record):
    """An init as process 1, and how it is asked to end what it runs.

    By ``stop_signal``, the host's number, or where that is 0 by ``stop_command``, run inside. The
    second is for those that take requests otherwise, and for real-time signals, which qemu-user
    numbers in its own way.
    """

    kind: InitKind
    stop_signal: int = 0
    stop_command: tuple[str, ...] = ()
    version: int = 0  # of systemd, 0 where that is not known
