"""Inside containers of an engine: at work where they allow it, and where not, what to allow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.oci_engine import Allowed, Engine, run_contained
from tests.runs import Runner

EVERYTHING: tuple[Allowed, ...] = ("seccomp", "systempaths")
HINTS: dict[str, tuple[dict[str, str], str]] = {
    "docker": (
        {},
        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
    ),
    "kubernetes": (
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        "in the container's securityContext: seccompProfile: {type: Unconfined},"
        " appArmorProfile: {type: Unconfined}",
    ),
    "github": (
        {"GITHUB_ACTIONS": "true"},
        "in the job: container: {options: --security-opt seccomp=unconfined"
        " --security-opt apparmor=unconfined}; or without container:",
    ),
    "gitlab": (
        {"GITLAB_CI": "true"},
        "in the runner's config.toml, [runners.docker]:"
        ' security_opt = ["seccomp:unconfined", "apparmor:unconfined"], or privileged = true',
    ),
}


def run_in(
    runner: Runner, *words: str, allowed: tuple[Allowed, ...] = (), engine: Engine = "docker"
) -> subprocess.CompletedProcess[str]:
    argv = runner.argv("--profile", "ci", runner.tree("arm64"), "--", *words)
    return run_contained(runner, argv, allowed=allowed, engine=engine)


@pytest.mark.parametrize("allowed", [("seccomp",), EVERYTHING])
def test_a_job_runs_where_user_namespaces_are_allowed(
    runner: Runner, allowed: tuple[Allowed, ...]
) -> None:
    done = run_in(runner, "sh", "-c", "uname -m; echo x >/root/x; exit 6", allowed=allowed)
    assert (done.returncode, done.stdout) == (6, "aarch64\n"), done.stderr
    is_masked = "systempaths" not in allowed
    assert ("parts of /proc are masked here" in done.stderr) == is_masked
    assert not os.path.exists(f"{runner.tree('arm64')}/root/x")


def test_a_job_runs_by_the_defaults_of_podman(runner: Runner) -> None:
    """Those refuse to set a host name, and nothing else that a run does."""
    done = run_in(runner, "sh", "-c", "uname -mn; exit 6", engine="podman")
    assert (done.returncode, done.stdout) == (6, "contained aarch64\n"), done.stderr


def test_a_host_name_that_was_asked_for_is_had_or_refused(runner: Runner) -> None:
    argv = runner.argv("--hostname", "board", runner.tree("arm64"), "uname", "-n")
    done = run_contained(runner, argv, engine="podman")
    assert done.returncode == 125
    assert "at «hostname board»: Operation not permitted (EPERM)" in done.stderr
    hint = "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    assert f"hint: {hint} --security-opt label=disable" in done.stderr
    done = run_contained(runner, argv, engine="podman", allowed=("seccomp",))
    assert done.stdout == "board\n"


CHOWN = ("sh", "-c", "touch f; chown 7:8 f; stat -c %u:%g f")
SET_CAPABILITIES = """
    chmod u-s usr/bin/newuidmap usr/bin/newgidmap
    setcap cap_setuid=ep usr/bin/newuidmap; setcap cap_setgid=ep usr/bin/newgidmap
    """


def test_subordinate_ids_need_file_capabilities(ranged: Runner) -> None:
    """A set-user-ID newuidmap has less in such a container than root outside."""
    done = run_in(ranged, *CHOWN, allowed=("seccomp",))
    assert done.stdout == "0:0\n", done.stderr
    assert "newuidmap gains too little in this container: in its image, as root:" in done.stderr
    argv = ranged.argv("--profile", "ci", ranged.tree("arm64"), "--", *CHOWN)
    done = run_contained(ranged, argv, allowed=("seccomp",), image=SET_CAPABILITIES)
    assert done.stdout == "7:8\n", done.stderr
    doctor = [*ranged.xbuild, "doctor"]
    done = run_contained(ranged, doctor, allowed=("seccomp",))
    assert "newuidmap gains too little" in " ".join(done.stdout.split())
    done = run_contained(ranged, doctor, allowed=("seccomp",), image=SET_CAPABILITIES)
    assert "onwards, were mapped" in " ".join(done.stdout.split())


@pytest.mark.parametrize("what", HINTS)
def test_what_to_allow_is_said(runner: Runner, what: str) -> None:
    environment, hint = HINTS[what]
    argv = runner.argv(runner.tree("arm64"), "true")
    done = run_contained(runner, argv, environment=environment)
    assert done.returncode == 125
    assert "Operation not permitted (EPERM): a seccomp filter, most likely of the" in done.stderr
    assert done.stderr.splitlines()[-1] == f"hint: {hint}"


def test_what_is_said_is_enough(ranged: Runner) -> None:
    """Each flag that the hint for docker names is one that the container above was given."""
    done = run_in(ranged, "true", allowed=("seccomp",))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("engine", "row"),
    [
        ("docker", "docker run --security-opt systempaths=unconfined"),
        ("podman", "podman run --security-opt unmask=ALL"),
    ],
)
def test_doctor_in_a_container(single: Runner, engine: Engine, row: str) -> None:
    done = run_contained(single, [*single.xbuild, "doctor"], engine=engine, allowed=("seccomp",))
    assert row in " ".join(done.stdout.split())


def test_doctor_where_namespaces_are_refused(single: Runner) -> None:
    done = run_contained(single, [*single.xbuild, "doctor"])
    assert "docker run --security-opt seccomp=unconfined" in " ".join(done.stdout.split())


def test_events_and_artifacts_in_a_container(
    single: Runner, fresh_tree: Callable[..., str]
) -> None:
    options = ("--profile", "ci", "--events", "-", "--copy-out", "/tmp/a:/tmp/b")
    argv = single.argv(*options, fresh_tree("arm64", single.user), "sh", "-c", "echo x >/tmp/a")
    line = '"$@" | tail -1; cat /tmp/b'
    done = run_contained(single, ["sh", "-c", line, "sh", *argv], allowed=("seccomp",))
    assert '"event": "exit"' in done.stdout.splitlines()[0], done.stderr
    assert done.stdout.splitlines()[1] == "x"
