"""Fixtures of the tests that run containers."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.runs import KINDS, Kind, Runner
from tests.users import User, current_user
from xbuild.record import HostPath


@pytest.fixture
def runner_of(
    request: pytest.FixtureRequest,
    foreign_tree: Callable[..., HostPath],
    xbuild_for: Callable[[User | None], list[str]],
    reachable_directory: HostPath,
) -> Callable[[Kind], Runner]:
    """``runner_of("range")``: xbuild as that kind of person."""

    def make(kind: Kind) -> Runner:
        if kind == "root":
            require("root", os.geteuid() == 0, "the tests do not run as root")
            home = os.path.join(reachable_directory, "home-root")
            os.makedirs(home, exist_ok=True)
            user = current_user(home)
        else:
            fixture = {"range": "ordinary_user", "plain": "plain_user"}[kind]
            user = request.getfixturevalue(fixture)
        xbuild = tuple(xbuild_for(user))
        return Runner(kind, user, xbuild, lambda name: foreign_tree(name, user))

    return make


@pytest.fixture
def root(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as real root."""
    return runner_of("root")


@pytest.fixture
def ranged(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as an ordinary user with subordinate ids."""
    return runner_of("range")


@pytest.fixture
def single(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as an ordinary user with one id."""
    return runner_of("plain")


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as each kind of person in turn."""
    kind: Kind = request.param
    return runner_of(kind)
