"""A container whose output passes through the launcher: see ``tap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.sandbox.container import Container
from xbuild.sandbox.terminal import Relay

if TYPE_CHECKING:
    from xbuild.plan.steps import Plan
    from xbuild.sandbox.assembly import Lines
    from xbuild.sandbox.console import Console
    from xbuild.sandbox.container import Watched
    from xbuild.sandbox.entry import Standing
    from xbuild.sandbox.tap import Tap


class TappedContainer(Container):
    """One run of a plan made for a request that is ``piped``; ``tap`` sees what it writes."""

    def __init__(self, plan: Plan, tap: Tap) -> None:
        super().__init__(plan)
        self._tap = tap

    def _run(self) -> int:
        try:
            return super()._run()
        finally:
            self._tap.close()
            self.remarks = (*self.remarks, *self._tap.losses())

    def _outputs(self) -> tuple[int, int]:
        return self._tap.open(self._plan.command)

    def _console_for(self, terminal: tuple[int, ...]) -> Relay | Console | None:
        console = super()._console_for(terminal)
        if isinstance(console, Relay):
            console.tap = self._tap
        return console

    def _attend(
        self, console: Relay | Console | None, watched: Watched, lines: Lines, standing: Standing
    ) -> None:
        super()._attend(console, watched, lines, standing)
        self._tap.run(watched.has_ended)
