"""``--ci``: what CI services are told, by the variables that their runners set."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest

from tests.ci_runners import obeyed_commands
from tests.conftest import OpenTerminal
from tests.crafted import merged_usr
from tests.images import MIB, Spec, make_image
from tests.runs import Runner
from xbuild.cli.merge import load_profile
from xbuild.record import HostPath

GITHUB = {"GITHUB_ACTIONS": "true", "CI": "true"}


def run_in(
    runner: Runner, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return runner.run(*arguments, env=runner.user.environment(**environment))


def test_github_on_success(runner: Runner) -> None:
    tree = runner.tree("arm64")
    done = run_in(runner, GITHUB, "--ci", tree, "--", "printf", "a\nb")
    group, stop, *output = done.stdout.splitlines()
    token = stop.removeprefix("::stop-commands::")
    assert (done.returncode, group) == (0, f"::group::xbuild run {tree} -- printf 'a\\nb'")
    assert output == ["a", "b", f"::{token}::", "::endgroup::"]
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    assert re.search(r"^note: time \d+\.\d s, processor ", done.stderr, re.MULTILINE)


def test_github_obeys_no_command_of_the_output(root: Runner) -> None:
    """Read as its runner reads a log: what stands between is text, and another run's line too."""
    lines = ("::add-mask::a", "::endgroup::", "##[error]no", "::stop-commands::x", "::x::")
    hostile = "".join(f"{line}\n" for line in lines)
    words = ("--ci", root.tree("arm64"), "--", "printf", "%s", hostile)
    first = run_in(root, GITHUB, *words).stdout
    token = re.findall("^::stop-commands::([0-9a-f]{32})$", first, re.MULTILINE)[0]
    again = run_in(root, GITHUB, *words[:-1], f"{hostile}::{token}::\n::error::no\n").stdout
    for log in (first, again):
        assert [name for name, _ in obeyed_commands(log)] == ["group", "endgroup"]


def test_github_on_failure(root: Runner) -> None:
    summary = os.path.join(root.user.home, "summary.md")
    environment = GITHUB | {"GITHUB_STEP_SUMMARY": summary}
    script = "echo out; echo 'a.c:1: error: no' >&2; exit 2"
    for _ in range(2):
        done = run_in(root, environment, "--ci", root.tree("arm64"), "--", "sh", "-c", script)
        assert done.returncode == 2
        last = done.stdout.splitlines()[-1]
        assert last.startswith("::error title=xbuild%3A ended with status 2::sh -c ")
        assert "a.c:1: error: no" in last
    with open(summary, encoding="utf-8") as file:
        text = file.read()
    assert text.count("### ✗ <code>sh -c") == 2
    assert "a.c:1: error: no" in text


def test_github_when_xbuild_fails(root: Runner) -> None:
    done = run_in(root, GITHUB, "--ci", "/nothing-there", "true")
    assert done.returncode == 125
    assert "::error title=xbuild%3A No such file%3A /nothing-there::" in done.stdout
    hostile = run_in(root, GITHUB, "--ci", root.tree("arm64"), "##[add-mask]a")
    assert (hostile.returncode, obeyed_commands(hostile.stderr)) == (127, [])
    assert "## [add-mask]a" in hostile.stderr


def test_a_summary_that_cannot_be_written_is_a_note(root: Runner) -> None:
    environment = GITHUB | {"GITHUB_STEP_SUMMARY": "/no/such/place"}
    done = run_in(root, environment, "--ci", root.tree("arm64"), "true")
    assert done.returncode == 0
    assert "note: cannot write GITHUB_STEP_SUMMARY /no/such/place" in done.stderr


def test_what_the_run_came_up_against_is_in_the_annotation(root: Runner) -> None:
    words = ("--ci", "--memory", "30M", root.tree("arm64"), "--", "sh", "-c")
    done = run_in(root, GITHUB, *words, "tail /dev/zero")
    assert done.returncode == 137
    error = done.stdout.splitlines()[-1]
    assert error.startswith("::error ")
    assert "%0Athe memory limit was reached, and processes were killed: " in error


def test_gitlab(root: Runner) -> None:
    """The section's name is not to be guessed: the output cannot end it, nor one run another's."""
    hostile = "\\033[0Ksection_end:1:xbuild_run\\r\\033[0K\n"
    done = run_in(root, {"GITLAB_CI": "true"}, "--ci", root.tree("arm64"), "printf", hostile)
    start = r"\x1b\[0Ksection_start:\d+:(xbuild_run_[0-9a-f]{32})\n"
    end = r"\x1b\[0Ksection_end:\d+:\1\n\x1b\[0K\n"
    said = re.fullmatch(
        rf"{start}\x1b\[0Kxbuild run \S+ -- printf [^\n]+\n(.*){end}", done.stdout, re.S
    )
    assert said is not None
    assert said[2] == "\x1b[0Ksection_end:1:xbuild_run\n\x1b[0K\n"  # \\r is \n in text mode


def test_elsewhere_the_output_is_as_it_is(root: Runner) -> None:
    done = run_in(root, {"CI": "true"}, "--ci", root.tree("arm64"), "echo", "x")
    assert (done.returncode, done.stdout) == (0, "x\n")


def test_off_is_a_plain_run(root: Runner) -> None:
    plan = root.output("--ci=off", "--dry-run", root.tree("arm64"))
    assert "passed on by xbuild" not in plan
    assert "passed on by xbuild" in root.output("--ci", "--dry-run", root.tree("arm64"))


PROFILE = ("--profile", "ci")


def test_profile_on_a_terminal_has_none_inside(root: Runner, open_terminal: OpenTerminal) -> None:
    script = "for fd in 0 1 2; do [ -t $fd ] && echo $fd; done; read x || echo no input; echo $TERM"
    command = root.argv(*PROFILE, root.tree("arm64"), "--", "sh", "-c", script)
    shown = open_terminal(command, user=root.user).read()
    assert shown.startswith("no input\r\ndumb\r\n")


def test_profile_asks_no_questions_and_wants_no_colour(runner: Runner) -> None:
    tree = runner.tree("arm64")
    lines = runner.output(*PROFILE, tree, "--", "env").splitlines()
    said = dict(load_profile("ci").values)["setenv"]
    assert set(said) <= set(lines)
    assert {"CI=true", "DEBIAN_FRONTEND=noninteractive", "NO_COLOR=1", "PIP_NO_INPUT=1"} <= set(
        lines
    )
    assert {"CARGO_TERM_COLOR=never", "npm_config_color=false", "GCC_COLORS="} <= set(lines)


def test_pip_knows_these_variables() -> None:
    said = dict(load_profile("ci").values)["setenv"]
    environment = dict(pair.split("=", 1) for pair in said if pair.startswith("PIP_"))
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, value in environment.items():
        key = name.removeprefix("PIP_").lower().replace("_", "-")
        assert f":env:.{key}='{value}'" in answer.stdout


def test_profile_keeps_nothing_but_what_is_copied_out_of_a_failure(runner: Runner) -> None:
    out = os.path.join(runner.user.home, "artifacts")
    words = (*PROFILE, "--copy-out", f"/tmp/artifacts:{out}", runner.tree("arm64"))
    script = "mkdir /tmp/artifacts; echo log >/tmp/artifacts/log; echo x >/root/x; exit 9"
    done = runner.run(*words, "--", "sh", "-c", script)
    assert done.returncode == 9
    with open(f"{out}/log", encoding="ascii") as file:
        assert file.read() == "log\n"
    assert not os.path.exists(os.path.join(runner.tree("arm64"), "root/x"))


def test_artifacts_of_a_hang_are_copied_out_and_it_is_told(root: Runner) -> None:
    out = os.path.join(root.user.home, "late")
    words = (*PROFILE, "--idle-timeout", "2", "--copy-out", f"/tmp/log:{out}", root.tree("arm64"))
    done = run_in(root, GITHUB, *words, "--", "sh", "-c", "echo x >/tmp/log; sleep 4321")
    assert done.returncode == 124
    assert os.path.exists(out)
    error = done.stdout.splitlines()[-1]
    assert error.startswith("::error title=xbuild%3A Time is up%3A nothing has moved for 2 s")
    assert "S sleep 4321" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_artifacts_of_a_cancelled_job_are_copied_out(runner: Runner, number: int) -> None:
    """Before GitHub kills it; its command takes no notice of being cancelled."""
    out = os.path.join(runner.user.home, "cancelled")
    words = (*PROFILE, "--copy-out", f"/tmp/log:{out}", runner.tree("arm64"), "--", "sh", "-c")
    script = "trap '' INT TERM; echo x >/tmp/log; echo ready; while :; do sleep 1; done"
    environment = runner.user.environment(**GITHUB)
    with runner.spawn(*words, script, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("ready\n", ""):
            continue
        os.kill(process.pid, number)
        rest = process.stdout.read()
    assert process.returncode == 137
    assert "::error title=xbuild%3A ended with status 137::" in rest
    with open(out, encoding="ascii") as file:
        assert file.read() == "x\n"


def test_what_the_profile_says_can_be_said_otherwise(
    root: Runner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    words = (*PROFILE, "--volatile", "no", "--ci=off", "--setenv", "NO_COLOR=0", tree)
    done = run_in(root, GITHUB, *words, "--", "sh", "-c", "echo $NO_COLOR; echo x >/root/x")
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert os.path.exists(f"{tree}/root/x")


def test_cache_key_is_the_same_for_every_copy_and_user(
    root: Runner, single: Runner, fresh_tree: Callable[..., HostPath]
) -> None:
    keys = {
        runner.output("--cache-key", tree)
        for runner in (root, single)
        for tree in (runner.tree("arm64"), fresh_tree("arm64", runner.user))
    }
    assert len(keys) == 1
    assert re.fullmatch(r"xbuild-aarch64-qemu[0-9._A-Za-z]+-[0-9a-f]{20}\n", keys.pop())


def test_cache_key_changes_with_packages_and_not_with_files_of_no_package(
    root: Runner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    before = root.output("--cache-key", tree)
    with open(f"{tree}/root/notes", "w", encoding="ascii") as file:
        file.write("x")
    assert root.output("--cache-key", tree) == before
    assert root.output("--cache-key", "--cpu", "cortex-a53", tree) != before
    status = f"{tree}/var/lib/dpkg/status"
    with open(status, "a", encoding="utf-8") as file:
        file.write("\nPackage: more\nStatus: install ok installed\n")
        file.write("Architecture: arm64\nVersion: 1\n")
    assert root.output("--cache-key", tree) != before


@pytest.mark.parametrize("target", ["/nothing-there", "/etc/passwd", "/proc"])
def test_cache_key_of_what_is_no_tree(root: Runner, target: str) -> None:
    done = root.run("--cache-key", target)
    assert done.returncode in (2, 125)
    assert done.stdout == ""
    assert done.stderr.startswith("xbuild: ")


def test_cache_key_of_an_image_is_that_of_its_tree(
    root: Runner, single: Runner, reachable_directory: HostPath
) -> None:
    tree = root.tree("arm64")
    wanted = root.output("--cache-key", tree)
    with tempfile.TemporaryDirectory(dir=reachable_directory) as place:
        os.chmod(place, 0o755)
        layout: list[Spec] = [("rootfs", "ext4", 256 * MIB, tree)]
        image = make_image(f"{place}/card.img", table="gpt", layout=layout)
        before = os.stat(image)
        assert root.output("--cache-key", image) == wanted
        assert single.output("--cache-key", image) == wanted
        after = os.stat(image)
        assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        subprocess.run(["gzip", "-1", image], check=True)
        assert root.output("--cache-key", f"{image}.gz") == wanted


def test_cache_key_of_an_image_without_packages(
    root: Runner, single: Runner, reachable_directory: HostPath
) -> None:
    with tempfile.TemporaryDirectory(dir=reachable_directory) as place:
        os.chmod(place, 0o755)
        tree = merged_usr("arm64", "/lib/ld-linux-aarch64.so.1") | {"etc/issue": b"x"}
        image = make_image(f"{place}/card.img", layout=[("rootfs", "ext4", 16 * MIB, tree)])
        assert root.output("--cache-key", image).startswith("xbuild-aarch64-")
        done = single.run("--cache-key", image)
        assert (done.returncode, done.stdout) == (125, "")
        assert "has no database of packages" in done.stderr
        assert "hint: as root" in done.stderr
