"""A container without anybody's terminal: its launcher is on its own, and its output in a log."""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING

from xbuild.errors import EXIT_FAILED, SetupFailed, XbuildError
from xbuild.sandbox.console import Console, Log, log_path
from xbuild.sandbox.container import Container

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from xbuild.plan.steps import Plan
    from xbuild.sandbox.cgroups import ControlGroups
    from xbuild.sandbox.channel import Reports
    from xbuild.sandbox.container import Shown, Watched, _Nothing
    from xbuild.sandbox.entry import Entry
    from xbuild.sandbox.signals import Forwarding
    from xbuild.sandbox.standing import Standing

    Tell = Callable[[Plan, int, bytes], None]


class DetachedContainer(Container):
    """A run whose launcher is a process of its own, which calls ``begun`` with its name.

    When the command fails, ``tell`` is called with what its log ends with, and writes there.
    """

    def __init__(self, plan: Plan, begun: Callable[[str], None], tell: Tell) -> None:
        super().__init__(plan)
        self._tell = tell
        self._call_begun = begun
        self._begun: Callable[[], None] = lambda: None
        self._log: Log | None = None  # of all boots one
        self._console: Console | None = None

    def _run_once(
        self, forwarding: Forwarding, standing: Standing, groups: ControlGroups | _Nothing
    ) -> int:
        status = super()._run_once(forwarding, standing, groups)
        if status and self._log is not None and self._plan.command.init is None:
            # Before those who wait are told of the end: they look into the log then.
            self._tell(self._plan, status, self._log.tail())
        return status

    def _console_for(self, terminal: tuple[int, ...]) -> Shown | None:
        self._console = Console(lambda: self._begun()) if terminal else None
        return self._console

    def _prepare(self, reports: Reports, entry: Entry | None) -> None:
        assert entry is not None  # it was required
        is_first = self._log is None
        log = self._log = self._log or Log(log_path(entry.name))

        def begun() -> None:
            if reports.receive() is not None:
                if is_first:
                    os.unlink(log_path(entry.name))  # who asked is told, and nothing was written
                return
            if is_first:
                self._call_begun(entry.name)
                for number in (1, 2):
                    os.dup2(log.fd, number)

        self._begun = begun
        if self._console is not None:
            self._console.open(log, entry)

    def _attend(self, console: Shown | None, watched: Watched) -> None:
        del console  # it is ours
        if self._console is not None:
            self._console.run(watched.has_ended)
        else:
            self._begun()


def detach(plan: Plan, tell: Tell) -> str:
    """Start a container that outlives this process, and return its name once its command runs.

    ``tell`` is called in its launcher where the command fails. Raises what Container.run does, and
    SetupFailed where its log cannot be written.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_launcher(plan, tell, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = _receive(pipe)
    match answer:
        case ("begun", str(name)):
            return name
        case ("failed", str(message), str(hint), int(status)):
            error = XbuildError(message, hint)
            error.exit_status = status
            raise error
        case _:
            raise SetupFailed(
                "The container ended before its command began",
                "dmesg says whether the kernel killed it; xbuild run shows what it does",
            )


def _send(writing: int, answer: tuple[str | int, ...]) -> None:
    content = marshal.dumps(answer)
    os.write(writing, len(content).to_bytes(4, "little") + content)
    os.close(writing)


def _receive(pipe: BinaryIO) -> tuple[Any, ...]:
    """Return an answer, or an empty one at the end of file (Any: as it was sent).

    There may be no such end while the container lives: its supervisor has the pipe as well.
    """
    content = pipe.read(int.from_bytes(pipe.read(4), "little"))
    answer: tuple[Any, ...] = marshal.loads(content) if content else ()
    return answer


def _be_launcher(plan: Plan, tell: Tell, writing: int) -> None:
    status = EXIT_FAILED
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)

        def begun(name: str) -> None:
            _send(writing, ("begun", name))

        status = DetachedContainer(plan, begun, tell).run()
    except XbuildError as error:
        status = error.exit_status
        try:
            _send(writing, ("failed", error.message, error.hint, error.exit_status))
        except OSError:
            os.write(2, f"xbuild: {error.message}\n".encode())  # it has begun: into the log
    finally:
        os._exit(status)
