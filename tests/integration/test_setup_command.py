"""``xbuild setup``: interpreters fetched by apt without root, side by side, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.interpreters import WITHOUT_QEMU, Versions
from tests.patience import WORK_S
from tests.runs import Runner
from tests.users import User

Xbuild = Callable[[User | None], list[str]]


def test_two_versions_stand_side_by_side(qemu_versions: Versions) -> None:
    listed = _list(qemu_versions, "arm64")
    own = [each for each in listed if each["path"].startswith(_cache(qemu_versions))]
    assert [each["version"] for each in own] == [qemu_versions.newer, qemu_versions.older]
    for each in own:
        directory = os.path.dirname(each["path"])
        assert os.path.basename(directory) == each["version"]
        with open(f"{directory}/origin.json", encoding="utf-8") as file:
            assert json.load(file)["package"].startswith("qemu-user")
        said = subprocess.run([each["path"], "--version"], capture_output=True, text=True).stdout
        assert f"version {each['version']} " in said


@pytest.mark.parametrize("name", ["arm64", "qemu-aarch64", "qemu-aarch64-static"])
def test_run_takes_the_version_that_is_asked_for(qemu_versions: Versions, name: str) -> None:
    """The two differ in what /proc/cpuinfo says: the older one shows the host's."""
    tree = qemu_versions.runner.tree("arm64")
    told = {}
    for version in (qemu_versions.older, qemu_versions.newer):
        told[version] = qemu_versions.runner.output(
            "--interpreter",
            f"{name}@{version}",
            tree,
            "cat",
            "/proc/cpuinfo",
            env=_env(qemu_versions),
        )
    assert "ARMv8" not in told[qemu_versions.older]
    assert "ARMv8" in told[qemu_versions.newer]


def test_first_numbers_are_enough(qemu_versions: Versions) -> None:
    major = qemu_versions.newer.split(".")[0]
    plan = qemu_versions.runner.output(
        "--dry-run", "--interpreter", f"arm@{major}", qemu_versions.runner.tree("armhf"),
        env=_env(qemu_versions),
    )  # fmt: skip
    assert f"/qemu/{qemu_versions.newer}/qemu-arm" in plan


def test_profile_may_name_a_version(qemu_versions: Versions, tmp_path: os.PathLike[str]) -> None:
    runner = qemu_versions.runner
    profile = f"{runner.user.home}/versioned.toml"
    with open(profile, "w", encoding="utf-8") as file:
        file.write(f'interpreter = "qemu-aarch64@{qemu_versions.newer}"\n')
    plan = runner.output(
        "--dry-run", "--profile", profile, runner.tree("arm64"), env=_env(qemu_versions)
    )
    assert f"/qemu/{qemu_versions.newer}/qemu-aarch64" in plan


def test_version_that_is_not_there_comes_with_the_command(qemu_versions: Versions) -> None:
    words = ("--interpreter", "arm64@6.1", qemu_versions.runner.tree("arm64"), "true")
    done = qemu_versions.runner.run(*words, env=_env(qemu_versions))
    assert done.returncode == 125
    assert qemu_versions.newer in done.stderr
    assert "hint: xbuild setup --version 6.1 arm64" in done.stderr


def test_cache_serves_a_host_without_qemu(need_root: None, qemu_versions: Versions) -> None:
    """The newest of the cache is found where the host's own are hidden."""
    runner = qemu_versions.runner
    inside = runner.user.argv(runner.argv(runner.tree("arm64"), "uname", "-m"))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", WITHOUT_QEMU, "sh"]
    done = subprocess.run(
        [*command, *inside],
        capture_output=True,
        text=True,
        cwd="/",
        env=_env(qemu_versions),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "aarch64\n"), done.stderr


def test_known_faults_are_listed(qemu_versions: Versions) -> None:
    older = next(e for e in _list(qemu_versions, "arm64") if e["version"] == qemu_versions.older)
    assert any("cpuinfo" in fault["summary"] for fault in older["faults"])
    assert all(fault["issue"].startswith("https://") for fault in older["faults"])
    done = qemu_versions.runner.command("setup", "--list", env=_env(qemu_versions))
    (said,) = (line for line in done.stdout.splitlines() if "cpuinfo" in line)
    assert said.startswith("known of ")
    assert f"arm64@{qemu_versions.older}" in said


def test_suite_that_nobody_has_is_explained(ranged: Runner) -> None:
    done = ranged.command("setup", "--suite", "no-such-suite", "arm64", timeout_s=WORK_S)
    assert done.returncode == 125
    assert "no-such-suite" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--version", "new"], "Not a version of qemu"),
        (["--suite", "../x"], "Not a suite"),
        (["--json"], "--json goes with --list"),
    ],
)
def test_bad_words_are_refused(xbuild_for: Xbuild, words: list[str], message: str) -> None:
    done = _setup(xbuild_for, *words)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_unknown_architecture_is_refused(xbuild_for: Xbuild) -> None:
    assert "Unknown architecture" in _setup(xbuild_for, "pdp11").stderr


def test_dry_run_prints_the_commands_of_the_package_manager(
    need_root: None, xbuild_for: Xbuild
) -> None:
    done = _setup(xbuild_for, "--dry-run")
    assert done.returncode == 0
    assert "apt-get -y -o DPkg::Lock::Timeout=300 install qemu-user" in done.stdout


def test_dry_run_of_an_ordinary_user_fetches_nothing(ranged: Runner) -> None:
    done = ranged.command("setup", "--dry-run", "arm64")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fetch static qemu-user of this host's apt sources")


def test_root_is_asked_first(need_root: None, xbuild_for: Xbuild) -> None:
    done = _setup(xbuild_for)
    assert done.returncode == 2
    assert "This would run: " in done.stderr
    assert "--yes agrees" in done.stderr


def test_what_is_there_and_works_is_not_installed_again(
    need_root: None, xbuild_for: Xbuild
) -> None:
    done = _setup(xbuild_for, "--yes", "arm64")
    assert (done.returncode, "arm64" in done.stdout) == (0, True), done.stderr


MANAGERS = {
    "dnf": ("ID=fedora\nVERSION_ID=42", "dnf -y install qemu-user-static"),
    "pacman": ("ID=arch", "pacman --noconfirm --needed -S qemu-user-static"),
    "zypper": ("ID=opensuse-leap", "zypper --non-interactive install qemu-linux-user"),
    "apk": ("ID=alpine", "apk --update-cache add qemu-aarch64"),
    "emerge": ("ID=gentoo", "emerge --ask=n app-emulation/qemu"),
}
# A host of another distribution, as far as setup can tell: its os-release, and a package manager
# that writes down how it was called and installs qemu.
OTHER_HOST = """
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/kept
cp /usr/bin/qemu-aarch64-static /mnt/kept/
mount -t overlay -o lowerdir=/usr/bin,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr/bin
rm /usr/bin/qemu-*
! test -d /usr/libexec/qemu-binfmt || mount -t tmpfs none /usr/libexec/qemu-binfmt
mount -t tmpfs none /usr/local/bin
cat >/usr/bin/$MANAGER <<'END'
#!/bin/sh
echo "called: $(basename $0) $*"
test -z "$FAILS" || exit 7
cp /mnt/kept/* /usr/bin/
END
chmod +x /usr/bin/$MANAGER
printf %s "$OS_RELEASE" >/mnt/os-release
mount --bind /mnt/os-release /usr/lib/os-release
exec "$@"
"""


@pytest.mark.parametrize("manager", MANAGERS)
def test_package_manager_of_the_host_is_called(
    need_root: None, xbuild_for: Xbuild, manager: str
) -> None:
    os_release, command = MANAGERS[manager]
    done = _on_other_host(xbuild_for, MANAGER=manager, OS_RELEASE=os_release)
    assert done.returncode == 0, done.stderr
    assert f"called: {command}\n" in done.stdout
    assert ": arm64\n" in done.stdout


def test_failing_package_manager_is_named(need_root: None, xbuild_for: Xbuild) -> None:
    done = _on_other_host(xbuild_for, MANAGER="dnf", OS_RELEASE="ID=fedora", FAILS="yes")
    assert done.returncode == 125
    assert "dnf -y install qemu-user-static failed with status 7" in done.stderr


def test_host_without_a_known_package_manager(need_root: None, ranged: Runner) -> None:
    hide = "mount -t tmpfs none /mnt; touch /mnt/x; mount --bind /mnt/x /usr/bin/apt-get"
    inside = ranged.user.argv([*ranged.xbuild, "setup", "--yes", "arm64"])
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    done = subprocess.run(
        [*command, f'{hide}; exec "$@"', "sh", *inside],
        capture_output=True,
        text=True,
        env=ranged.user.environment(),
        check=False,
    )
    assert done.returncode == 125
    assert "not one that xbuild knows" in done.stderr


def _on_other_host(xbuild_for: Xbuild, **variables: str) -> subprocess.CompletedProcess[str]:
    inside = [*xbuild_for(None), "setup", "--yes", "arm64"]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", OTHER_HOST, "sh"]
    return subprocess.run(
        [*command, *inside],
        capture_output=True,
        text=True,
        # Not the tests' own: Portage is installed among their programs.
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
        check=False,
    )


def _setup(xbuild_for: Xbuild, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*xbuild_for(None), "setup", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _list(versions: Versions, name: str) -> list[dict[str, Any]]:
    done = versions.runner.command("setup", "--list", "--json", name, env=_env(versions))
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "xbuild.interpreters/1"
    listed: list[dict[str, Any]] = document["interpreters"]
    return listed


def _env(versions: Versions) -> dict[str, str]:
    return versions.environment


def _cache(versions: Versions) -> str:
    return versions.environment["XDG_CACHE_HOME"]
