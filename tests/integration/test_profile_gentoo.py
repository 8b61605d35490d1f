"""``--profile gentoo``: Portage at work in foreign trees, and the values worked out for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capability import require
from tests.gentoo import CHOST, MAKE_CONF, PACKAGES, PROFILE, install_portage, lay_out
from tests.groups import limited_group
from tests.loopback import served
from tests.patience import WORK_S
from tests.runs import Kind, Runner, notes, write_program
from xbuild.plan.limiting import read_hierarchies
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]
RunnerOf = Callable[[Kind], Runner]

EMERGE = "emerge --color n app-misc/hello; hello"
FROM_BINARY = "; rm -r /usr/bin/hello /var/db/pkg/app-misc; emerge -q -K app-misc/hello; hello"
SHARED = "PORTAGE_BINHOST=file:///srv/binpkgs"
# The tests' tree has no wget, which Portage would fetch with.
FETCH = (
    "FETCHCOMMAND_HTTP=python3 -c 'import sys, urllib.request as r; r.urlretrieve(*sys.argv[1:])'"
    " ${URI} ${DISTDIR}/${FILE}"
)


@pytest.fixture
def gentoo_of(fresh_tree: Fresh) -> Callable[..., HostPath]:
    """``gentoo_of(runner)``: a new armhf tree with Portage, owned by that user."""

    def make(runner: Runner) -> HostPath:
        tree = fresh_tree("armhf", runner.user, PACKAGES)
        lay_out(tree)
        install_portage(tree)
        own(tree, runner)
        return tree

    return make


@pytest.fixture
def tree(fresh_tree: Fresh, root: Runner) -> HostPath:
    """Root's armhf tree laid out as Gentoo's, without Portage, to be planned for."""
    tree = fresh_tree("armhf", root.user)
    lay_out(tree)
    return tree


@pytest.fixture
def cached(root: Runner) -> Iterator[dict[str, str]]:
    """An environment with a cache of the test's own."""
    place = f"{root.user.home}/cache-{os.getpid()}"
    yield root.user.environment(XDG_CACHE_HOME=place)
    shutil.rmtree(place, ignore_errors=True)


def own(tree: HostPath, runner: Runner) -> None:
    if not runner.user.is_self:
        ids = f"{runner.user.uid}:{runner.user.gid}"
        subprocess.run(["chown", "-hR", ids, tree], check=True)


def settings(runner: Runner, *words: str) -> dict[str, str]:
    """Return what a planned run is set to, variables by their names."""
    plan = runner.output("--dry-run", "--profile", "gentoo", *words)
    lines = [line[9:] for line in plan.splitlines() if line.startswith("setting: ")]
    pairs = [line.rpartition(" (")[0].partition(" = ") for line in lines]
    found = {key: value for key, _, value in pairs}
    return found | dict(value.split("=", 1) for key, _, value in pairs if key == "setenv")


@pytest.mark.parametrize("kind", ["range", "plain"])
def test_emerge(runner_of: RunnerOf, gentoo_of: Callable[..., HostPath], kind: Kind) -> None:
    runner = runner_of(kind)
    cache = HostPath(f"{runner.user.home}/cache-{os.getpid()}")
    assert_emerges(runner, gentoo_of(runner), cache, EMERGE)
    _remove(runner, cache)


def assert_emerges(runner: Runner, tree: HostPath, cache: HostPath, script: str) -> str:
    """Have app-misc/hello made from source, and look at what there is then; return what it says."""
    with open(f"{tree}/etc/portage/make.conf", "rb") as file:
        before = file.read()
    done = runner.run(
        *("--profile", "gentoo", tree, "sh", "-ec", script),
        env=runner.user.environment(XDG_CACHE_HOME=cache),
        timeout_s=WORK_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    builder = "root" if runner.kind == "plain" else "portage"
    cores = len(os.sched_getaffinity(0))
    said = [line for line in done.stdout.splitlines() if line.startswith("made with ")]
    place = "/var/tmp/portage/app-misc/hello-1.0/work"
    says = f"made with -j{cores} -l{cores} by {builder} in {place}"
    assert said == [says] * script.count(" hello")
    packages = os.listdir(f"{cache}/xbuild/portage/binpkgs/{CHOST}/app-misc/hello")
    assert packages == ["hello-1.0-1.gpkg.tar"]
    assert os.path.isdir(f"{cache}/xbuild/portage/distfiles")
    with open(f"{tree}/etc/portage/make.conf", "rb") as file:
        assert file.read() == before
    assert os.listdir(f"{tree}/var/tmp") == []
    assert not os.path.exists(f"{tree}/var/cache/binpkgs")
    return f"{says}\n"


def test_emerge_and_binary_packages_of_another_machine(
    root: Runner, gentoo_of: Callable[..., HostPath]
) -> None:
    """From source; then from the binary package that came of it, for which it is deleted.

    Then others, in a tree and caches of their own, take it and compile nothing.
    """
    home = HostPath(f"{root.user.home}/machines-{os.getpid()}")
    tree = gentoo_of(root)
    built = assert_emerges(root, tree, HostPath(f"{home}/builder"), EMERGE + FROM_BINARY)
    binhost = Path(_pkgdir(root, tree, f"{home}/builder"))
    files = [path for path in binhost.rglob("*") if path.is_file()]
    tree = gentoo_of(root)
    with served() as site:
        site.files = {f"/{path.relative_to(binhost)}": path.read_bytes() for path in files}
        for name, *options in (
            ("server", "--setenv", f"PORTAGE_BINHOST={site.url}", "--setenv", FETCH),
            ("directory", "--setenv", SHARED, "--bind-ro", f"{binhost}:/srv/binpkgs"),
        ):
            assert not os.path.exists(_pkgdir(root, tree, f"{home}/{name}"))
            options += ["--ephemeral", "--setenv", "MAKEOPTS=-j7"]
            assert _emerge(root, tree, f"{home}/{name}", "--getbinpkgonly", *options) == built
        assert site.fetches("/app-misc/hello/hello-1.0-1.gpkg.tar") == 1
    shutil.rmtree(home)


def _emerge(runner: Runner, tree: HostPath, cache: str, how: str, *options: str) -> str:
    """Emerge app-misc/hello, and return what it says."""
    script = f"emerge -q --color n {how} app-misc/hello >&2; hello"
    return runner.output(
        *("--profile", "gentoo", *options, tree, "sh", "-ec", script),
        env=runner.user.environment(XDG_CACHE_HOME=cache),
        timeout_s=WORK_S,
    )


def _pkgdir(runner: Runner, tree: HostPath, cache: str) -> HostPath:
    """Return the directory of this machine that a run's PKGDIR is."""
    environment = runner.user.environment(XDG_CACHE_HOME=cache)
    shown = runner.command("profile", "show", "gentoo", tree, env=environment).stdout
    (line,) = (each for each in shown.splitlines() if ":/run/xbuild/portage/binpkgs:" in each)
    return HostPath(line.partition(" = ")[2].partition(":")[0])


def _remove(runner: Runner, cache: str) -> None:
    """Remove what belongs to ids that are the container's."""
    if os.geteuid() == 0:
        shutil.rmtree(cache)
        return
    words = ("--bind", f"{cache}:/mnt", "-x", runner.tree("armhf"))
    runner.output(*words, "sh", "-c", "rm -r /mnt/*")


def test_features_are_tried_and_not_guessed(
    root: Runner, gentoo_of: Callable[..., HostPath]
) -> None:
    """What this container refuses is off, and more where it is allowed less."""
    tree = gentoo_of(root)
    assert settings(root, tree)["FEATURES"] == "buildpkg -pid-sandbox"
    fewer = settings(root, "--drop-capability", "sys_admin", tree)["FEATURES"].split()
    names = ("mount-sandbox", "pid-sandbox", "ipc-sandbox", "network-sandbox")
    assert set(fewer) == {"buildpkg", *(f"-{name}" for name in names)}
    done = root.run("--dry-run", "--profile", "gentoo", tree)
    wanted = "FEATURES that do not work in this container are off: pid-sandbox"
    assert wanted in notes(done)


def test_one_user_id(single: Runner, gentoo_of: Callable[..., HostPath]) -> None:
    found = settings(single, gentoo_of(single))
    assert (found["PORTAGE_USERNAME"], found["PORTAGE_GRPNAME"]) == ("root", "root")


def test_values_are_worked_out_of_the_tree_and_the_machine(
    root: Runner, tree: HostPath, cached: dict[str, str]
) -> None:
    found = settings(root, "--memory", "3g", "--cpus", "1", tree)
    assert found["cpu"] == "cortex-a9"
    assert found["tmpfs"] == "/var/tmp:size=1536m"
    assert found["MAKEOPTS"] == "-j1 -l1"
    assert "PORTAGE_USERNAME" not in found
    plan = root.output("--dry-run", "--profile", "gentoo", tree, env=cached)
    store = f"{cached['XDG_CACHE_HOME']}/xbuild/portage"
    assert f"bind       /run/xbuild/portage/binpkgs <- {store}/binpkgs/{CHOST} " in plan
    assert f"bind       /run/xbuild/portage/distfiles <- {store}/distfiles " in plan
    assert "inode32" in next(line for line in plan.splitlines() if " /var/tmp (" in line)
    assert not os.path.exists(store)


def test_what_a_control_group_may_have_is_all_there_is(root: Runner, tree: HostPath) -> None:
    """As in a container of a CI service: the limits are those of a group above."""
    files = dict(read_hierarchies().places)
    unified = "" in files and "memory" in read_hierarchies().offered
    require("control groups", unified or {"memory", "cpu"} <= set(files), "no such controllers")
    argv = root.argv("--dry-run", "--profile", "gentoo", tree)
    with contextlib.ExitStack() as groups:
        for controller, settings in (
            ("memory", ("memory.max=2147483648", "memory.limit_in_bytes=2147483648")),
            ("cpu", ("cpu.cfs_quota_us=100000", "cpu.max=100000 100000")),
        ):
            parent = files[""] if unified else files[controller]
            argv = [*groups.enter_context(limited_group(parent, settings)), *argv]
        done = root.user.run(argv)
    assert "setenv = MAKEOPTS=-j1 -l1 (" in done.stdout, done.stderr
    assert "tmpfs = /var/tmp:size=1024m (" in done.stdout


def test_tree_without_unshare_is_noted(root: Runner, tree: HostPath) -> None:
    done = root.run("--dry-run", "--profile", "gentoo", tree)
    assert any("FEATURES were not tried" in note for note in notes(done))


def test_ccache_where_the_tree_has_it(root: Runner, tree: HostPath) -> None:
    write_program(f"{tree}/usr/bin/ccache", "#!/bin/sh\n")
    assert settings(root, tree)["FEATURES"] == "buildpkg ccache"


def test_profile_is_shown_with_its_values(root: Runner, tree: HostPath) -> None:
    shown = root.command("profile", "show", "gentoo", tree)
    assert "cpu = cortex-a9\n" in shown.stdout
    assert f"/portage/binpkgs/{CHOST}:/run/xbuild/portage/binpkgs:mkdir\n" in shown.stdout
    assert 'cpu = "{cpu}"' in root.command("profile", "show", "gentoo").stdout


def test_hosts_repository_is_bound_read_only(root: Runner, tree: HostPath) -> None:
    """In a mount namespace in which the host has one."""
    repository = "/var/db/repos/gentoo"
    os.makedirs(f"{tree}{repository}")
    run = root.argv("--profile", "gentoo", tree, "sh", "-c", f"cd {repository}; cat a; touch b")
    script = f"mkdir -p /var/db; mount -t tmpfs tmpfs /var/db; mkdir -p {repository};"
    script += f'echo of the host >{repository}/a; exec "$@"'
    had_it = os.path.isdir("/var/db")
    done = root.user.run(["unshare", "--mount", "sh", "-ec", script, "sh", *run])
    if not had_it:
        os.rmdir("/var/db")
    assert done.stdout == "of the host\n", done.stderr
    assert (done.returncode, "Read-only file system" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("flags", "options", "said"),
    [
        ("-march=native", (), "-march=native means the emulated processor"),
        ("-march=armv7ve", ("--cpu", "cortex-a8"), "-march=armv7ve is beyond cortex-a8"),
    ],
)
def test_flags_that_go_too_far_are_noted(
    root: Runner, tree: HostPath, flags: str, options: tuple[str, ...], said: str
) -> None:
    write_program(f"{tree}/etc/portage/make.conf", f'CFLAGS="-O2 {flags}"\n', 0o644)
    done = root.run("--dry-run", "--profile", "gentoo", *options, tree)
    assert any(said in note for note in notes(done)), done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("make_conf", "profile", "complaint"),
    [
        ("A='\nnonsense", PROFILE, "/etc/portage/make.conf:1: no closing quotation"),
        ("\nif true; then\n", PROFILE, "/etc/portage/make.conf:2: not NAME=VALUE: 'if'"),
        (MAKE_CONF, "default/linux/arm64/23.0", "follows the profile default/linux/arm64/23.0"),
        (MAKE_CONF + "CHOST=../../../etc-x", PROFILE, "Not a CHOST in make.conf"),
        (MAKE_CONF.replace("armv7a-", "aarch64-"), PROFILE, "has CHOST=aarch64-unknown-linux"),
    ],
)
def test_tree_that_contradicts_itself_is_refused(
    root: Runner, fresh_tree: Fresh, make_conf: str, profile: str, complaint: str
) -> None:
    tree = fresh_tree("armhf", root.user)
    lay_out(tree, make_conf, profile)
    done = root.run("--profile", "gentoo", tree, "true")
    assert complaint in done.stderr
    assert done.returncode in (2, 125)
    assert "\nhint: " in done.stderr


def test_tree_that_is_no_gentoo_is_refused(root: Runner) -> None:
    done = root.run("--profile", "gentoo", root.tree("arm64"), "true")
    assert "is no Gentoo tree" in done.stderr
    assert done.returncode == 125


def test_profile_for_another_architecture_is_refused(root: Runner, tmp_path: object) -> None:
    profile = f"{tmp_path}/arm.toml"
    write_program(profile, 'arch = ["armhf", "riscv64"]\n', 0o644)
    done = root.run("--profile", profile, root.tree("arm64"), "true")
    assert (done.returncode, "is for armhf, riscv64, and " in done.stderr) == (2, True)
    assert root.run("--profile", profile, root.tree("armhf"), "true").returncode == 0
