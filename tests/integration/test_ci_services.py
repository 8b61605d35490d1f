"""The action for GitHub and the template for GitLab, run as the services' runners run them."""

from __future__ import annotations

import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ci_runners import GitHubRunner, obeyed_commands, read_yaml, run_gitlab_job
from tests.installation import CHECKOUT, copy_distributions
from tests.runs import Runner
from xbuild.record import HostPath

# Nothing is fetched: what the build and xbuild need is there already, see the fixture.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
SHIPPED = (
    *("xbuild", "binfmt", "known", "profiles", "script", "ci", "action.yml", "pyproject.toml"),
    *("hatch_build.py", "README.md", "LICENSE"),
)
DOWNLOADED = ("click", "rich", "pyelftools", "zstandard", "hatchling", "editables")


class Service:
    """A runner's machine: a user, a directory, a checkout of xbuild, what pip would download."""

    def __init__(self, runner: Runner, place: HostPath, venv: HostPath) -> None:
        self.runner = runner
        self.place = place
        self.checkout = f"{place}/checkout"
        os.mkdir(self.checkout)
        for name in SHIPPED:
            source = f"{CHECKOUT}/{name}"
            target = f"{self.checkout}/{name}"
            if os.path.isdir(source):
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.venv = f"{place}/venv"
        subprocess.run(["cp", "-a", venv, self.venv], check=True)
        owner = f"{runner.user.uid}:{runner.user.gid}"
        subprocess.run(["chown", "-R", owner, place], check=True)
        os.chmod(place, 0o755)

    def github(self) -> GitHubRunner:
        return GitHubRunner(self.runner.user, self.place, XBUILD_VENV=self.venv, **OFFLINE)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> HostPath:
    """What pip has downloaded, to be copied: by its Python, not by its programs, it goes there."""
    place = tmp_path_factory.mktemp("service") / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", place], check=True)
    (site,) = glob.glob(f"{place}/lib/python3*/site-packages")
    copy_distributions(site, *DOWNLOADED)
    return HostPath(str(place))


@pytest.fixture
def service(
    request: pytest.FixtureRequest, ranged: Runner, reachable_directory: HostPath, venv: HostPath
) -> Iterator[Service]:
    """A machine whose jobs run as an ordinary user, or as whom the test is parametrized with."""
    runner = request.getfixturevalue("root") if getattr(request, "param", "") == "root" else ranged
    place = tempfile.mkdtemp(prefix="service-", dir=reachable_directory)
    yield Service(runner, HostPath(place), venv)
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


@pytest.mark.parametrize("service", ["root", "range"], indirect=True)
def test_action(service: Service) -> None:
    github, tree = service.github(), service.runner.tree("arm64")
    done = github.run(
        service.checkout,
        tree=tree,
        run='uname -m\necho "in $PWD, $GREETING"\nmkdir /out; cp product /out/product',
        options="--tmpfs /out\n\n  --no-sync\n--hostname builder",
        artifacts="/out/product:artifact",
        env="GREETING=hello to you",
    )
    assert done.returncode == 1, done.stderr
    assert "::error title=xbuild%3A ended with status 1::" in done.stdout
    with open(f"{github.workspace}/product", "w", encoding="ascii") as file:
        file.write("made\n")
    script = 'uname -m\necho "in $PWD, $GREETING"\ncp product /out/product; touch /work/seen'
    done = github.run(
        service.checkout,
        tree=tree,
        run=script,
        options="--tmpfs /out\n\n  --no-sync\n--hostname builder",
        artifacts="/out/product:artifact",
        env="GREETING=hello to you",
    )
    assert done.returncode == 0, done.stderr
    assert "\naarch64\nin /work, hello to you\n" in done.stdout
    assert [name for name, _ in obeyed_commands(done.stdout)] == ["group", "endgroup"]
    assert done.stdout.startswith("::group::xbuild run ")
    assert "\nnote: time " in done.stdout
    assert re.fullmatch(r"xbuild-aarch64-qemu\S+-[0-9a-f]{20}", done.outputs["cache-key"])
    assert done.summary.count("### ") == 2
    assert os.stat(f"{github.workspace}/seen").st_uid == service.runner.user.uid
    assert os.path.exists(f"{github.workspace}/artifact")


def test_action_without_a_tree_installs_alone(service: Service) -> None:
    done = service.github().run(service.checkout)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert re.search(r"^xbuild \d", done.stderr, re.MULTILINE)
    assert done.outputs == {"cache-key": ""}


def test_action_that_is_cancelled(root: Runner, tmp_path: Path) -> None:
    """GitHub's runner sends its signals to the step's shell, and to none of its children."""
    step = read_yaml(f"{CHECKOUT}/action.yml")["runs"]["steps"][-1]
    script = tmp_path / "step.sh"
    script.write_text(step["run"])
    # No long sleep: its shell's child would lose a signal that comes before it has become sleep(1).
    waits = "while :; do sleep 0.05; done"
    path = f"{os.path.dirname(root.xbuild[0])}:{os.environ['PATH']}"
    environment = root.user.environment(
        GITHUB_ACTIONS="true",
        GITHUB_ACTION_PATH=CHECKOUT,
        XBUILD_TREE=root.tree("arm64"),
        XBUILD_SCRIPT=f"trap 'exit 7' INT; echo log >/tmp/log; echo ready; {waits}",
        XBUILD_ARTIFACTS=f"/tmp/log:{tmp_path}/artifact",
    )
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
        env={**environment, "PATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        while runner.stdout.readline() not in ("ready\n", ""):
            continue
        runner.send_signal(signal.SIGINT)
        log = runner.stdout.read()
    assert runner.returncode == 7, log
    assert (tmp_path / "artifact").read_text() == "log\n"
    assert "::error title=xbuild%3A ended with status 7::" in log


def test_inputs_are_no_code_of_the_runner(service: Service) -> None:
    github = service.github()
    hostile = '"; touch ../broken; $(touch ../broken) `touch ../broken`'
    done = github.run(
        service.checkout,
        tree=service.runner.tree("arm64"),
        run=f"echo '{hostile}'",
        env=f"X={hostile}",
        options=f"--setenv Y={hostile}",
    )
    assert done.returncode == 0, done.stderr
    assert hostile in done.stdout
    assert not os.path.exists(f"{service.place}/broken")


def test_template(service: Service) -> None:
    project = f"{service.place}/project"
    os.mkdir(project)
    git = ["git", "-C", service.checkout, "-c", "user.name=t", "-c", "user.email=t@localhost"]
    init = [[*git, "init", "-q", "-b", "main"], [*git, "add", "-A"], [*git, "commit", "-qm", "x"]]
    for command in init:
        assert service.runner.user.run(command).returncode == 0
    owner = f"{service.runner.user.uid}:{service.runner.user.gid}"
    subprocess.run(["chown", "-R", owner, project], check=True)
    variables = {
        "XBUILD_REPOSITORY": f"file://{service.checkout}",
        "XBUILD_VENV": service.venv,
        "XBUILD_TREE": service.runner.tree("arm64"),
        "XBUILD_SCRIPT": "uname -m; echo log >/tmp/log; exit $STATUS",
        "XBUILD_ARTIFACTS": "/tmp/log:artifacts/",
        "XBUILD_ENV": "STATUS",
    }
    for status in (0, 3):
        done = run_gitlab_job(
            service.runner.user,
            f"{CHECKOUT}/ci/gitlab.yml",
            ".xbuild",
            project,
            variables,
            STATUS=str(status),
            **OFFLINE,
        )
        assert done.returncode == status, done.stderr
        assert "aarch64\n" in done.stdout
        assert re.search(r"\x1b\[0Ksection_start:\d+:xbuild_run", done.stdout)
        assert os.path.exists(f"{project}/artifacts/log")
        shutil.rmtree(f"{project}/.xbuild")
        shutil.rmtree(f"{project}/artifacts")


def test_both_know_every_setting_of_the_script() -> None:
    with open(f"{CHECKOUT}/script/ci-run", encoding="utf-8") as file:
        known = set(re.findall(r"^#   (XBUILD_[A-Z]+)", file.read(), re.MULTILINE))
    template = read_yaml(f"{CHECKOUT}/ci/gitlab.yml")[".xbuild"]["variables"]
    action = read_yaml(f"{CHECKOUT}/action.yml")["runs"]["steps"][-1]["env"]
    assert known <= set(template)
    assert known == set(action)


@pytest.mark.parametrize("missing", ["XBUILD_TREE", "XBUILD_SCRIPT"])
def test_what_has_to_be_said(root: Runner, missing: str) -> None:
    environment = root.user.environment(XBUILD_TREE="/", XBUILD_SCRIPT="true")
    del environment[missing]
    done = root.user.run([f"{CHECKOUT}/script/ci-run"], env=environment)
    assert done.returncode == 2
    assert missing in done.stderr
