"""A target appears whole or not at all, whenever a signal comes."""

from __future__ import annotations

import os
import signal

import pytest

from xbuild.cli.interruption import Interrupted, signals_raised
from xbuild.errors import SourceError
from xbuild.record import HostPath
from xbuild.source import place
from xbuild.source.place import place_beside, settle


def test_signal_while_it_is_cleared_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    """What was made has its name, and nothing is left beside it; then the signal is heard."""
    target = HostPath(f"{tmp_path}/target")
    empty = place._empty

    def interrupted(beside: HostPath, outer: None) -> None:
        if os.listdir(beside):
            os.kill(os.getpid(), signal.SIGTERM)
        empty(beside, outer)

    monkeypatch.setattr(place, "_empty", interrupted)

    def make() -> None:
        with signals_raised(), place_beside(target, None) as beside:
            os.mkdir(f"{beside}/made")
            os.mkdir(f"{beside}/other")
            settle(HostPath(f"{beside}/made"), target)

    with pytest.raises(Interrupted):
        make()
    assert os.listdir(tmp_path) == ["target"]


def test_name_that_is_too_long(tmp_path: os.PathLike[str]) -> None:
    with (
        pytest.raises(SourceError) as caught,
        place_beside(HostPath(f"{tmp_path}/{'x' * 250}"), None),
    ):
        pass
    assert "a shorter name" in caught.value.hint
