"""What the options mean that boot a tree. Loaded where one of them is used."""

from __future__ import annotations

import re
import signal

from xbuild.errors import UsageError
from xbuild.plan.lifecycle import BOOTED_KILL_TIMEOUT_S
from xbuild.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import JournalChoice, RegisterChoice, Request

_REAL_TIME = re.compile(r"RTMIN\+([0-9]|1[0-5])")
_LAST_SIGNAL = 64
_JOURNALS: dict[str, JournalChoice] = {
    "no": "no",
    "auto": "auto",
    "host": "host",
    "guest": "guest",
}
_REGISTERS: dict[str, RegisterChoice] = {"no": "no", "auto": "auto", "yes": "yes"}
_WITHOUT_TERM = "vt220"  # as systemd-nspawn and agetty(8) take it


def with_boot(request: Request, parsed: Parsed) -> Request:
    """Return a request with what these options say. Raises UsageError."""
    said = parsed.one("kill_signal")
    journal, register = parsed.one("link_journal") or "no", parsed.one("register") or "no"
    if "boot" not in parsed.flags:
        if said is None and {journal, register} <= {"no", "auto"}:
            return request
        raise UsageError(
            "--kill-signal, --link-journal and --register go with --boot",
            "xbuild run --boot TREE boots one",
        )
    if parsed.one("console") == "pipe":
        raise UsageError(
            "--console pipe does not go with --boot: an init wants a terminal",
            "leave one of them out; xbuild start --boot TREE keeps its output in a log",
        )
    return replace(
        request,
        boot=True,
        # A guest that brings interfaces up, and listens where it likes, has its own to do it on.
        network=request.network if _is_network_said(parsed) else "none",
        terminal=(0, 1, 2),
        term=request.term or _WITHOUT_TERM,
        link_journal=_JOURNALS[journal],
        register=_REGISTERS[register],
        kill_signal=None if said is None else signal_name(said),
        kill_timeout_s=request.kill_timeout_s
        if parsed.one("kill_timeout")
        else BOOTED_KILL_TIMEOUT_S,
    )


def _is_network_said(parsed: Parsed) -> bool:
    return parsed.one("network") is not None or bool(parsed.many("port"))


def signal_name(text: str) -> str:
    """Return a signal's name without SIG, or its number, as kill(1) takes them.

    Raises UsageError.
    """
    name = text.upper().removeprefix("SIG")
    if name.isdecimal() and 0 < int(name) <= _LAST_SIGNAL:
        return name
    if _REAL_TIME.fullmatch(name) or f"SIG{name}" in signal.Signals.__members__:
        return name
    raise UsageError(f"Not a signal: {text!r}", "such as SIGTERM, SIGRTMIN+3, 15")
