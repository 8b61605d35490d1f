"""The process on the host's side that copies into a container, and out of it at the end.

Off the start path: loaded where a copy was asked for.
"""

from __future__ import annotations

import os

from xbuild.plan.copies import CopyIn, CopyOut
from xbuild.plan.steps import Bind
from xbuild.sandbox import _linux
from xbuild.sandbox.copying import pack, unpack_outside
from xbuild.sandbox.mountinfo import is_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from xbuild.plan.steps import Plan
else:
    import _signal as signal


class Porter:
    """The launcher's child ``pid``, that does it. ``into`` and ``out`` are the container's ends."""

    def __init__(self, plan: Plan) -> None:
        self._copies_in = [step for step in plan.steps if isinstance(step, CopyIn)]
        self._copies_out = [step for step in plan.steps if isinstance(step, CopyOut)]
        writable = [s.source for s in plan.steps if isinstance(s, Bind) and not s.read_only]
        self._guests = tuple(os.path.realpath(place) for place in (plan.target, *writable))
        self.into, into = os.pipe()
        out, self.out = os.pipe()
        self._failures, failures = os.pipe()
        launcher = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            for fd in (self.into, self.out, self._failures):
                os.close(fd)
            self._work(into, out, failures, launcher)
        for fd in (into, out, failures):
            os.close(fd)

    @property
    def lines(self) -> tuple[int, int]:
        """Return the ends that process 1 has."""
        return self.into, self.out

    def __enter__(self) -> Porter:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.waitpid(self.pid, 0)
        os.close(self._failures)

    def failures(self) -> tuple[str, ...]:
        """Wait for the last copy, and return what went wrong on the way out, in words."""
        said = b""
        while chunk := os.read(self._failures, 4096):
            said += chunk
        return tuple(said.decode("utf-8", "surrogateescape").splitlines())

    def _work(self, into: int, out: int, failures: int, launcher: int) -> NoReturn:
        try:
            _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != launcher:
                os._exit(1)
            os.setsid()
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            for copy_in in self._copies_in:
                pack(copy_in.source, into)
            os.close(into)
            for copy_out in self._copies_out:
                self._receive(copy_out, out, failures)
        finally:
            os._exit(0)

    def _receive(self, step: CopyOut, out: int, failures: int) -> None:
        try:
            parent = os.path.dirname(step.target)
            is_guests = any(is_within(parent, place) for place in self._guests)
            unpack_outside(out, step.target, is_guests=is_guests)
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            text = f"Cannot copy {step.source} to {step.target}: {error.strerror}{where}\n"
            os.write(failures, text.encode("utf-8", "surrogateescape"))
