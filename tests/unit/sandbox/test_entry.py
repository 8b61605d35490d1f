"""Entries of running containers, in a directory that goes with the last of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xbuild.errors import NameTaken
from xbuild.plan.lifecycle import Enlist
from xbuild.plan.steps import Exec, Plan
from xbuild.record import GuestPath, HostPath
from xbuild.sandbox.entry import Entry

PLAN = Plan(HostPath("/"), (Exec(("true",), (), GuestPath("/")),))
REMOVER = """
import os, sys
print(flush=True)
while True:
    try:
        os.rmdir(sys.argv[1])
    except OSError:
        pass
"""


def test_directory_that_goes_with_the_last_of_others_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers that end do, all the time: between the making of it and its first entry."""
    directory = tmp_path / "xbuild"
    monkeypatch.setattr("xbuild.sandbox.entry.state_directory", lambda: str(directory))
    remover = [sys.executable, "-c", REMOVER, str(directory)]
    with subprocess.Popen(remover, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            for number in range(20):
                entry = Entry(Enlist(f"name-{number}", is_given=True), PLAN)
                assert f"name-{number}.entry" in os.listdir(directory)
                os.close(entry.control)
                entry.end(0)
        finally:
            process.kill()


def test_name_of_one_that_was_killed_is_had_once_the_kernel_has_taken_it_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its launcher is gone, and its process 1, which has the same lock, a moment later."""
    monkeypatch.setattr("xbuild.sandbox.entry.state_directory", lambda: str(tmp_path / "xbuild"))
    launcher = os.fork()
    if launcher == 0:
        Entry(Enlist("name", is_given=True), PLAN)
        if os.fork() == 0:
            time.sleep(0.5)
        os._exit(0)
    os.waitpid(launcher, 0)
    entry = Entry(Enlist("name", is_given=True), PLAN)
    with pytest.raises(NameTaken):
        Entry(Enlist("name", is_given=True), PLAN)
    os.close(entry.control)
    entry.end(0)
