"""Experiments: do something in a forked child, of which nothing is left, and learn how it went.

Off the start path.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import time

from xbuild.errors import HostUnable, XbuildError
from xbuild.sandbox import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

TIMEOUT_S = 20.0
_CHUNK = 65536


def in_child(act: Callable[[], str], *, timeout_s: float = TIMEOUT_S) -> str:
    """Call ``act`` in a forked child and return what it returned.

    Raises OSError as the child did, with errno and file name; HostUnable for any XbuildError of
    the child's, and when it did not end in time or died. Namespaces, mounts and processes that
    the child made end with it, provided that it made no process outlive it by itself.
    """
    answers, answer = os.pipe()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        _be_child(act, answer, parent)
    os.close(answer)
    try:
        content = _read_until(answers, time.monotonic() + timeout_s)
    finally:
        os.close(answers)
        os.kill(pid, signal.SIGKILL)  # no process is reaped yet: this is still the child
        os.waitpid(pid, 0)
    if content is None:
        raise HostUnable(
            f"it did not end within {timeout_s:.0f} s",
            "a machine under load may be that slow: again, when it is not",
        )
    return _result(content)


def _be_child(act: Callable[[], str], answer: int, parent: int) -> NoReturn:
    answered: tuple[str | int, ...] = ("died",)
    try:
        _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            answered = ("done", act())
    except XbuildError as error:
        answered = ("unable", error.message, error.hint)
    except RecursionError:
        answered = ("unable", "directories are nested too deeply to be followed", "")
    except OSError as error:
        answered = ("errno", error.errno or 0, error.strerror or "", str(error.filename or ""))
    finally:
        os.write(answer, marshal.dumps(answered))
        os._exit(0)


def _read_until(fd: int, deadline: float) -> bytes | None:
    """Read to the end of file; None when it has not come by ``deadline`` (time.monotonic)."""
    content = b""
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            return content
        content += chunk
    return None


def _result(content: bytes) -> str:
    match marshal.loads(content) if content else ("died",):
        case ("done", str(text)):
            return text
        case ("unable", str(message), str(hint)):
            raise HostUnable(message, hint)
        case ("errno", int(number), str(text), str(name)):
            raise OSError(number, text, name or None)
        case _:
            raise HostUnable(
                "the attempt ended without a result", "dmesg says whether the kernel killed it"
            )
