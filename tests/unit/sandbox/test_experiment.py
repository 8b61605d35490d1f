"""Doing something in a child: what comes back, and that the child is gone."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from tests import leftovers
from xbuild.errors import BinfmtError, HostUnable
from xbuild.sandbox.experiment import in_child


def test_result_comes_back() -> None:
    assert in_child(lambda: "done") == "done"


def test_what_it_does_to_itself_stays_in_the_child() -> None:
    def act() -> str:
        os.chdir("/")
        return os.getcwd()

    before = os.getcwd()
    assert in_child(act) == "/"
    assert os.getcwd() == before


def test_long_result_comes_back_whole() -> None:
    assert in_child(lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_refusal_of_the_kernel_comes_back_with_errno_and_path() -> None:
    with pytest.raises(OSError, match="absent") as caught:
        in_child(lambda: str(os.open("/absent", os.O_RDONLY)))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/absent")


def test_error_of_ours_comes_back_with_its_hint() -> None:
    def act() -> str:
        raise BinfmtError("no entry", "register one")

    with pytest.raises(HostUnable) as caught:
        in_child(act)
    assert (caught.value.message, caught.value.hint) == ("no entry", "register one")


def test_child_that_does_not_end_is_killed() -> None:
    def act() -> str:
        time.sleep(60)
        return "done"

    before = leftovers.descendants()
    with pytest.raises(HostUnable, match="did not end within 0 s"):
        in_child(act, timeout_s=0.2)
    assert leftovers.left_since(before) == {}


def test_child_that_dies_is_noticed() -> None:
    def act() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    with pytest.raises(HostUnable, match="without a result"):
        in_child(act)


def test_no_descriptor_is_left() -> None:
    before = os.listdir("/proc/self/fd")
    in_child(lambda: "done")
    assert os.listdir("/proc/self/fd") == before
