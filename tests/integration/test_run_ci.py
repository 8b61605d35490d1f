"""``--ci``: what CI services are told, by the variables that their runners set."""

from __future__ import annotations

import os
import re
import subprocess

from tests.runs import Runner

GITHUB = {"GITHUB_ACTIONS": "true", "CI": "true"}


def run_in(
    runner: Runner, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return runner.run(*arguments, env=runner.user.environment(**environment))


def test_github_on_success(runner: Runner) -> None:
    tree = runner.tree("arm64")
    done = run_in(runner, GITHUB, "--ci", tree, "--", "printf", "a\nb")
    group = f"::group::xbuild run {tree} -- printf 'a\\nb'\n"
    assert (done.returncode, done.stdout) == (0, f"{group}a\nb\n::endgroup::\n")
    assert re.search(r"^note: time \d+\.\d s, processor ", done.stderr, re.MULTILINE)


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


def test_a_summary_that_cannot_be_written_is_a_note(root: Runner) -> None:
    environment = GITHUB | {"GITHUB_STEP_SUMMARY": "/no/such/place"}
    done = run_in(root, environment, "--ci", root.tree("arm64"), "true")
    assert done.returncode == 0
    assert "note: cannot write GITHUB_STEP_SUMMARY /no/such/place" in done.stderr


def test_gitlab(root: Runner) -> None:
    done = run_in(root, {"GITLAB_CI": "true"}, "--ci", root.tree("arm64"), "echo", "x")
    start = r"\x1b\[0Ksection_start:\d+:xbuild_run\r\x1b\[0Kxbuild run \S+ -- echo x\n"
    end = r"\x1b\[0Ksection_end:\d+:xbuild_run\r\x1b\[0K\n"
    assert re.fullmatch(f"{start}x\n{end}", root_bytes(done))


def root_bytes(done: subprocess.CompletedProcess[str]) -> str:
    """Return output whose carriage returns text mode has turned into line feeds, undone."""
    return done.stdout.replace("xbuild_run\n", "xbuild_run\r")


def test_elsewhere_the_output_is_as_it_is(root: Runner) -> None:
    done = run_in(root, {"CI": "true"}, "--ci", root.tree("arm64"), "echo", "x")
    assert (done.returncode, done.stdout) == (0, "x\n")


def test_off_is_a_plain_run(root: Runner) -> None:
    plan = root.output("--ci=off", "--dry-run", root.tree("arm64"))
    assert "passed on by xbuild" not in plan
    assert "passed on by xbuild" in root.output("--ci", "--dry-run", root.tree("arm64"))
