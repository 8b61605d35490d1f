"""``--dry-run``: it changes nothing, and prints the very steps that a run applies."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.runs import Runner
from tests.trees import tree_hash
from xbuild.cli.merge import settings_said
from xbuild.cli.options import parse
from xbuild.cli.settings import build_request
from xbuild.plan.explain import explain, to_json
from xbuild.plan.make import plan_run

Strace = Callable[..., list[str]]

REQUEST = ["--bind", "/etc:/new/deep", "--bind-ro=/usr/bin/env:/mnt/env", "--tmpfs", "/opt:size=1m"]
MOUNTING = ("Proc", "ReadOnlyOver", "Sysfs", "Tmpfs", "Bind", "Devpts", "Show", "Mqueue")


@pytest.fixture
def traced(root: Runner) -> Strace:
    """Run under strace(1) and return its lines."""
    require("strace", shutil.which("strace") is not None, "strace is not installed")

    def trace(calls: str, *words: str, home: str | None = None) -> list[str]:
        log = os.path.join(root.user.home, "strace")
        command = ["strace", "-f", "-o", log, "-e", f"trace={calls}", *root.argv(*words)]
        done = root.user.run(command, env=root.user.environment(HOME=home or root.user.home))
        assert done.returncode == 0, done.stderr
        with open(log, errors="replace") as file:
            lines = file.read().splitlines()
        os.unlink(log)
        return lines

    return trace


def test_plan_printed_is_the_plan_that_a_run_makes(root: Runner) -> None:
    words = [*REQUEST, "--user", "nobody", root.tree("arm64"), "true"]
    parsed = parse(words)
    plan = plan_run(build_request(parsed), remember=False)
    said = tuple((each.key, each.value, each.origin) for each in settings_said(parsed))
    assert said[0] == ("bind", "/etc:/new/deep", "command line")
    assert root.output("--dry-run", *words) == explain(plan, said) + "\n"
    assert root.output("--dry-run", "--json", *words) == to_json(plan, said) + "\n"


@pytest.mark.parametrize("options", [[], ["--ephemeral"], ["--network", "none"]], ids=" ".join)
def test_steps_printed_are_the_steps_applied(
    root: Runner, traced: Strace, options: list[str]
) -> None:
    """Every mount that the kernel is asked for, in order, is one of the plan's."""
    words = [*options, *REQUEST, root.tree("arm64"), "true"]
    plan = json.loads(root.output("--dry-run", "--json", *words))
    wanted = [step["target"] for step in plan["steps"] if step["step"] in MOUNTING]
    scaffolds = [step["directory"] for step in plan["steps"] if step["step"] == "Scaffold"]
    targets: dict[str, str] = {}
    mounted = []
    for line in traced("openat2,move_mount", *words):
        opened = re.search(r'openat2\(\d+, "([^"]*)", .* = (\d+)$', line)
        if opened:
            targets[opened[2]] = "/" + opened[1].removeprefix(".")
            continue
        moved = re.search(r'move_mount\(\d+, "", (\d+), .* = 0$', line)
        if moved:
            mounted.append(targets.pop(moved[1], "entry of a scaffold"))
    assert [m for m in mounted if m != "entry of a scaffold"] == [*scaffolds, *wanted]


def test_dry_run_writes_nowhere(root: Runner, traced: Strace) -> None:
    """Not even what it learnt about the interpreter, which it has to try out."""
    tree, home = root.tree("arm64"), os.path.join(root.user.home, "empty")
    os.mkdir(home)
    before = tree_hash(tree)
    calls = "openat,open,creat,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,symlink"
    calls += ",symlinkat,link,linkat,chmod,fchmod,fchmodat,chown,fchown,fchownat,mount,fsopen"
    calls += ",move_mount,unshare,setns,truncate,ftruncate,utimensat,mknod,mknodat,setxattr"
    for option in ("--json", "--ephemeral"):
        for line in traced(calls, "--dry-run", option, *REQUEST, tree, "true", home=home):
            is_write = re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)
            is_opening = re.search(r" (openat|open)\(", line) and not is_write
            is_harmless = re.search(r'"/dev/(null|tty)"|memfd|resumed>|\+\+\+|---|\?\?\?\(', line)
            assert is_opening or is_harmless, line
    assert os.listdir(home) == []
    assert tree_hash(tree) == before
    root.output(tree, "true", env=root.user.environment(HOME=home))
    assert os.listdir(home) == [".cache"]
    shutil.rmtree(home)


def test_dry_run_of_a_tree_that_one_may_only_read(root: Runner, ranged: Runner) -> None:
    plan = ranged.output("--dry-run", root.tree("armhf"), "true")
    assert plan.splitlines()[0] == f"plan for {root.tree('armhf')}"
    assert "note: the tree belongs to root, not to you" in plan


def test_dry_run_where_a_run_would_fail(single: Runner) -> None:
    """What can be known beforehand fails the same way; what only trying shows does not."""
    tree = single.tree("arm64")
    for words in (["--bind", "/no/such:/mnt"], ["--user", "nobody"], ["--tmpfs", "/"]):
        dry = single.run("--dry-run", *words, tree, "true")
        wet = single.run(*words, tree, "true")
        assert (dry.returncode, dry.stderr, dry.stdout) == (wet.returncode, wet.stderr, "")
    assert single.run("--dry-run", tree, "no-such-command").returncode == 0


def test_terminal_is_in_the_plan(root: Runner, open_terminal: Callable[..., object]) -> None:
    session = open_terminal(root.argv("--dry-run", root.tree("arm64"), "true"), user=root.user)
    session.expect_exact("on a terminal of its own")  # type: ignore[attr-defined]  # pexpect.spawn
