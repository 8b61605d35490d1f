"""Hosts that withhold something: masked /proc, chroots, namespaces switched off, containers."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable

import pytest

from tests.installation import CHECKOUT
from tests.patience import PATIENCE_S
from tests.runs import Runner, notes
from xbuild.record import HostPath

Surroundings = Callable[..., subprocess.CompletedProcess[str]]

MASK = """
    mount -t tmpfs -o ro tmpfs /proc/acpi
    mount --bind /dev/null /proc/timer_list || mount --bind /dev/null /proc/modules
    mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
    """


@pytest.fixture
def surrounded(root: Runner) -> Surroundings:
    """Change a private mount namespace by a script of root's, then run as someone in it."""

    def run(script: str, runner: Runner, *words: str) -> subprocess.CompletedProcess[str]:
        command = shlex.join(runner.user.argv(runner.argv(*words)))
        whole = f"set -e\n{script}\ncd {runner.user.home}; exec {command}"
        environment = runner.user.environment()
        return root.user.run(["unshare", "-m", "sh", "-c", whole], env=environment)

    return run


@pytest.mark.parametrize("kind", ["ranged", "single"])
def test_masked_proc(request: pytest.FixtureRequest, kind: str, surrounded: Surroundings) -> None:
    """As in a container of docker's: the outer /proc is shown, and works for oneself."""
    runner: Runner = request.getfixturevalue(kind)
    script = """
        test "$(cat /proc/self/comm)" = cat; grep -q . /proc/self/status
        bash -c 'cat <(echo through-fd)'; cat </dev/null; sleep 0.01 & wait; uname -m
        """
    done = surrounded(MASK, runner, runner.tree("arm64"), "sh", "-ec", script)
    assert done.stdout.split() == ["through-fd", "aarch64"], done.stderr
    assert any("parts of /proc are masked" in note for note in notes(done))


def test_masked_proc_does_not_bother_root(root: Runner, surrounded: Surroundings) -> None:
    done = surrounded(MASK, root, root.tree("arm64"), "cat", "/proc/1/comm")
    assert done.stdout == "xbuild-init\n", done.stderr
    assert not [note for note in notes(done) if "masked" in note]


def test_nothing_is_left_of_a_run_with_the_outer_proc(
    single: Runner, surrounded: Surroundings
) -> None:
    """Without a /proc of its own the PID namespace still ends with its first process."""
    script = "(trap '' TERM HUP; sleep 30) & (setsid sleep 30 &) ; exit 4"
    done = surrounded(MASK, single, single.tree("arm64"), "sh", "-c", script)
    assert done.returncode == 4, done.stderr


CHROOT = "mount --rbind / /mnt"


def test_chroot_is_named(runner: Runner, root: Runner) -> None:
    command = shlex.join(runner.user.argv(runner.argv(runner.tree("arm64"), "true")))
    done = root.user.run(
        ["unshare", "-m", "sh", "-c", f"{CHROOT}; exec chroot /mnt {command}"],
        env=runner.user.environment(),
    )
    assert done.returncode == 125
    assert "(EPERM)" in done.stderr
    assert "a process inside a chroot may not make user namespaces" in done.stderr
    assert "hint: start xbuild outside of the chroot" in done.stderr


@pytest.mark.parametrize(
    ("kind", "limit", "text"),
    [
        ("user", 0, "user.max_user_namespaces=0"),
        ("user", 1, "namespaces are used up"),
        ("mnt", 0, "user.max_mnt_namespaces=0"),
        ("pid", 0, "user.max_pid_namespaces=0"),
        ("net", 0, "user.max_net_namespaces=0"),
    ],
)
def test_namespaces_switched_off(single: Runner, kind: str, limit: int, text: str) -> None:
    command = shlex.join(single.argv("--network", "none", single.tree("arm64"), "true"))
    script = f"echo {limit} >/proc/sys/user/max_{kind}_namespaces; exec {command}"
    done = single.user.run(["unshare", "-Ur", "sh", "-c", script])
    assert done.returncode == 125
    assert "(ENOSPC)" in done.stderr
    assert text in done.stderr
    assert "hint: as " in done.stderr


BUBBLEWRAP = (
    "--unshare-user --unshare-pid --bind / / --dev /dev --proc /proc",
    "--unshare-all --ro-bind / / --dev /dev --proc /proc --tmpfs /run",
    "--unshare-user --bind / / --dev /dev --cap-drop ALL",
)


@pytest.mark.parametrize("how", BUBBLEWRAP)
def test_in_a_container_of_bubblewrap(ranged: Runner, how: str) -> None:
    """It sets no_new_privs, so that newuidmap gains nothing there."""
    command = ranged.argv("--profile", "ci", ranged.tree("arm64"), "uname", "-m")
    done = ranged.user.run(["bwrap", *how.split(), *command])
    assert done.stdout == "aarch64\n", done.stderr
    assert any("one user id only (newuidmap gains nothing here" in note for note in notes(done))


def test_in_one_that_allows_no_more_user_namespaces(ranged: Runner) -> None:
    how = "--unshare-user --bind / / --dev /dev --disable-userns"
    command = ranged.argv(ranged.tree("arm64"), "true")
    done = ranged.user.run(["bwrap", *how.split(), *command])
    assert (done.returncode, "namespaces are used up, here or" in done.stderr) == (125, True)
    assert "hint: as the host's root: sysctl user.max_user_namespaces=15000" in done.stderr


def test_root_of_an_outer_user_namespace(runner: Runner) -> None:
    done = runner.user.run(["unshare", "-Ur", *runner.argv(runner.tree("arm64"), "uname", "-m")])
    assert done.stdout == "aarch64\n", done.stderr
    assert any("user ids mapped here: 1" in note for note in notes(done))


def test_proc_of_another_pid_namespace(runner: Runner) -> None:
    command = runner.argv(runner.tree("arm64"), "true")
    done = runner.user.run(["unshare", "-Urp", "--fork", *command])
    assert (done.returncode, "another PID namespace" in done.stderr) == (125, True), done.stderr
    done = runner.user.run(["unshare", "-Urpm", "--fork", "--mount-proc", *command])
    assert done.returncode == 0, done.stderr


def test_xbuild_inside_xbuild(runner: Runner) -> None:
    """The host's own tree is one like any other; a container in a container needs no privilege."""
    inner = ["/usr/bin/python3", "-IS", *runner.argv(runner.tree("arm64"), "uname", "-m")]
    options: list[str] = []
    if runner.kind == "root":  # its launcher and checkout may be in /tmp, which is another there
        options = ["--bind-ro", f"{CHECKOUT}:/mnt"]
        code = "import sys; sys.path.insert(0, '/mnt');"
        code += "from xbuild.cli.main import main; sys.exit(main())"
        inner = ["/usr/bin/python3", "-ISc", code, *inner[3:]]
    done = runner.run(*options, "/", *inner)
    assert done.stdout == "aarch64\n", done.stderr


@pytest.mark.parametrize("dropped", ["mknod", "chown", "dac_override", "sys_admin"])
def test_root_without_some_capability(root: Runner, dropped: str) -> None:
    """Then a user namespace serves, as it does for everyone else."""
    words = root.argv(root.tree("arm64"), "uname", "-m")
    done = root.user.run(["setpriv", f"--bounding-set=-{dropped}", *words])
    assert done.stdout == "aarch64\n", done.stderr


@pytest.mark.parametrize("dropped", ["setuid", "setgid", "setfcap", "all"])
def test_root_that_may_not_map_ids(root: Runner, dropped: str) -> None:
    words = root.argv(root.tree("arm64"), "true")
    done = root.user.run(["setpriv", f"--bounding-set=-{dropped}", *words])
    assert (done.returncode, "Cannot map ids: root lacks" in done.stderr) == (125, True)


def test_no_new_privileges(ranged: Runner) -> None:
    """newuidmap gains nothing then: one id it is."""
    words = ranged.user.argv(ranged.argv(ranged.tree("arm64"), "uname", "-m"))
    environment, home = ranged.user.environment(), ranged.user.home
    done = subprocess.run(
        ["setpriv", "--no-new-privs", *words],
        env=environment, cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "aarch64\n", done.stderr
    assert any("no_new_privs" in note for note in notes(done))


def test_missing_host_proc(root: Runner, surrounded: Surroundings) -> None:
    done = surrounded("mount -t tmpfs tmpfs /proc", root, root.tree("arm64"), "true")
    assert (done.returncode, "/proc" in done.stderr) == (125, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["null", "tty", "full"])
def test_missing_host_devices(runner: Runner, surrounded: Surroundings, name: str) -> None:
    """A sparse /dev of an outer container's: what it lacks is lacking inside."""
    script = """
        mkdir /tmp/dev.$$ && mount --rbind /dev /tmp/dev.$$ && mount -t tmpfs tmpfs /dev
        for node in null zero random urandom; do
            touch /dev/$node && mount --bind /tmp/dev.$$/$node /dev/$node
        done
        umount -l /tmp/dev.$$ && rmdir /tmp/dev.$$
        """
    shown = surrounded(script, runner, runner.tree("arm64"), "sh", "-c", f"test -e /dev/{name}")
    is_there = runner.kind == "root" or name == "null"
    assert shown.returncode == (0 if is_there else 1), shown.stderr


def test_tree_by_a_relative_path_and_through_links(runner: Runner) -> None:
    tree = runner.tree("arm64")
    link = HostPath(os.path.join(runner.user.home, "link-to-tree"))
    os.symlink(tree, link)
    try:
        for name in ("link-to-tree", "./link-to-tree/", f"{link}//./"):
            assert runner.output(name, "uname", "-m") == "aarch64\n"
        assert runner.output(".", "uname", "-m", cwd=tree) == "aarch64\n"
    finally:
        os.unlink(link)


@pytest.mark.parametrize("limit", ["--nproc=1", "--nproc=3", "--nofile=9", "--nofile=12"])
def test_limits_of_the_session(runner: Runner, limit: str) -> None:
    """Whatever runs out first: an explanation, no traceback, nothing left."""
    words = runner.argv(runner.tree("arm64"), "true")
    assert runner.user.run(words).returncode == 0
    done = runner.user.run(["prlimit", limit, *words])
    if runner.kind == "root" and done.returncode == 0:
        return  # CAP_SYS_RESOURCE is above the number of processes
    assert done.returncode in (125, 126), done.stderr
    assert "Traceback" not in done.stderr
    assert "Resource temporarily unavailable" in done.stderr or "Too many open" in done.stderr


def test_working_directory_that_is_gone(runner: Runner) -> None:
    tree = runner.tree("arm64")
    for words, status in ((["relative"], 2), (["--bind", "x:/mnt", tree], 2), ([tree, "pwd"], 0)):
        script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
        done = runner.user.run(["sh", "-c", script, "sh", *runner.argv(*words)])
        assert done.returncode == status, done.stderr
        assert ("the working directory was removed" in done.stderr) == (status == 2)


@pytest.mark.parametrize("words", ["who x", "doctor x", "inspect x", "image pack x"])
def test_no_command_needs_a_working_directory_to_say_so(root: Runner, words: str) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    done = root.user.run(["sh", "-c", script, "sh", *root.xbuild, *words.split()])
    assert done.returncode in (1, 2, 125)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("option", "status"), [("noexec", 126), ("ro", 0), ("nosuid", 0)])
def test_tree_mounted_with_restrictions(
    runner: Runner, surrounded: Surroundings, option: str, status: int
) -> None:
    tree = runner.tree("arm64")
    script = f"mount --bind {tree} /mnt && mount -o remount,bind,{option} /mnt"
    for words in ((), ("--ephemeral",)):
        done = surrounded(script, runner, *words, "/mnt", "/bin/true")
        assert done.returncode == status or words, done.stderr
        assert ("mounted noexec" in done.stderr) == (done.returncode == 126)


def test_twenty_at_once(runner: Runner) -> None:
    tree = runner.tree("arm64")
    runs = [runner.spawn("-x", tree, "sh", "-c", f"exit {number}") for number in range(20)]
    for process in runs:
        process.communicate(timeout=PATIENCE_S)
    assert [process.returncode for process in runs] == list(range(20))
