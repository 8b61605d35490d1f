"""Containers run from a Python program, by the public interface."""

from __future__ import annotations

import pytest

from tests.runs import Runner

SCRIPT = """
import os, sys
from xbuild import Container, Request, XbuildError, plan_run

def descriptors():
    return sorted(os.listdir("/proc/self/fd"))

def run(*command):
    plan = plan_run(Request(sys.argv[1], command), remember=False)
    try:
        return Container(plan).run()
    except XbuildError as error:
        return error.exit_status

run("true")
before = descriptors()
print(run("sh", "-c", "exit 3"), run("no-such-command"), run("/etc"), run("sh", "-c", "kill -9 $$"))
after = descriptors()
assert after == before, (before, after)
"""


@pytest.mark.usefixtures("host_untouched")
def test_runs_leave_no_descriptor_open(runner: Runner) -> None:
    tree = runner.tree("arm64")
    with open(runner.xbuild[0], encoding="utf-8") as launcher:
        python, *path = [next(launcher).rstrip() for _ in range(3)]
    script = "\n".join((*path, SCRIPT))
    done = runner.user.run([*python.removeprefix("#!").split(), "-c", script, tree])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "127", "126", "137"]
