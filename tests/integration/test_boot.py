"""Trees that boot: their own init as process 1, from its start to its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.bootable import boot, unpack_bootable
from tests.patience import PATIENCE_S
from tests.runs import Kind, Runner, notes, write_program
from tests.users import current_user
from xbuild.record import HostPath

INITTAB = """\
::sysinit:/bin/echo sysinit ran
::respawn:/bin/sleep 1000
::shutdown:/bin/echo shutdown ran
"""
BusyboxTree = Callable[..., HostPath]


def small_tree(runner: Runner, busybox_tree: BusyboxTree) -> HostPath:
    """Return a tree of busybox alone whose init has something to do."""
    tree = busybox_tree("arm64", runner.user)
    write_program(f"{tree}/etc/inittab", INITTAB, 0o644)
    return tree


@pytest.fixture
def small(root: Runner, busybox_tree: BusyboxTree) -> HostPath:
    return small_tree(root, busybox_tree)


@pytest.fixture(scope="module")
def bootable(
    xbuild_for: Callable[..., list[str]], reachable_directory: HostPath
) -> Iterator[Callable[[str], HostPath]]:
    """``bootable("sysvinit")``: root's tree with that init; runs on it are ephemeral."""
    found: dict[str, HostPath] = {}

    def make(init: str) -> HostPath:
        if init not in found:
            place = HostPath(f"{reachable_directory}/boot-{init}-{os.getpid()}")
            user = current_user(reachable_directory)
            found[init] = unpack_bootable(init, place, user, xbuild_for(user))
        return found[init]

    yield make
    for place in found.values():
        subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


@pytest.mark.parametrize("kind", ["root", "range", "plain"])
def test_busybox_as_anybody(
    runner_of: Callable[[Kind], Runner], kind: Kind, busybox_tree: BusyboxTree
) -> None:
    runner = runner_of(kind)
    with boot(runner, small_tree(runner, busybox_tree)) as booted:
        booted.wait_for("sysinit ran")
        assert booted.inside("cat", "/proc/1/comm").stdout == "busybox\n"
        assert booted.inside("sh", "-c", "echo $PPID").stdout == "0\n"
        assert booted.stop() == 0
    assert "shutdown ran" in booted.log()


@pytest.mark.parametrize(
    ("init", "ready", "end"),
    [
        ("sysvinit", "login:", "Will now halt"),
        ("openrc", "login:", "Will now halt"),
        ("runit", "enter stage: /etc/runit/2", "leave stage: /etc/runit/3"),
    ],
)
def test_init_reaches_its_login_and_ends(
    root: Runner, bootable: Callable[[str], HostPath], init: str, ready: str, end: str
) -> None:
    with boot(root, bootable(init), "--ephemeral") as booted:
        booted.wait_for(ready)
        assert booted.stop() == 0
    assert end.lower() in booted.log().lower()


def test_reboot_boots_again_and_poweroff_ends(root: Runner, small: HostPath) -> None:
    with boot(root, small) as booted:
        booted.wait_for("sysinit ran")
        booted.inside("busybox", "reboot")
        booted.wait_for("sysinit ran", times=2)
        assert booted.name in root.command("ps", "-q").stdout.split()
        booted.wait_until_joined("true")
        booted.inside("busybox", "poweroff")
        assert booted.wait() == 0
    assert booted.log().count("shutdown ran") == 2


@pytest.mark.parametrize("halt", ["halt", "poweroff"])
def test_end_from_inside_in_the_foreground(root: Runner, small: HostPath, halt: str) -> None:
    write_program(f"{small}/etc/inittab", f"::sysinit:/bin/echo up\n::once:/bin/busybox {halt}\n")
    done = root.run("--boot", small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("up\n")


def test_what_follows_are_arguments_of_the_init(root: Runner, small: HostPath) -> None:
    write_program(f"{small}/sbin/init", '#!/bin/sh\necho "$$: $*"\n')
    done = root.run("--boot", small, "--", "single", "-v")
    assert (done.returncode, done.stdout) == (0, "1: single -v\n"), done.stderr


def test_short_form_and_plan(root: Runner, small: HostPath) -> None:
    done = root.run("-b", "--dry-run", small)
    assert "an init (busybox), stopped by signal 12" in done.stdout
    assert "/dev/console -> pts/0" in done.stdout
    assert "setting: boot = true (command line)" in done.stdout
    assert "network    lo up, nothing else" in done.stdout


def test_network_of_a_boot_is_its_own_unless_it_is_said(root: Runner, small: HostPath) -> None:
    write_program(f"{small}/sbin/init", "#!/bin/sh\nreadlink /proc/self/ns/net\n")
    own = os.readlink("/proc/self/ns/net")
    assert root.run("--boot", small).stdout.strip() != own
    shared = root.run("--boot", "--network", "host", small)
    assert shared.stdout.strip() == own
    assert any("the host's network" in note for note in notes(shared))


def test_settings_boot_too(root: Runner, small: HostPath) -> None:
    write_program(f"{small}/sbin/init", "#!/bin/sh\necho init\n")
    settings = f"{small}.xbuild.toml"
    write_program(settings, "boot = true\n", 0o600)
    try:
        assert root.run(small).stdout == "init\n"
    finally:
        os.unlink(settings)


def test_kill_signal(root: Runner, small: HostPath) -> None:
    script = "#!/bin/sh\ntrap 'echo asked; exit 3' USR1\necho up\nwhile :; do sleep 0.1; done\n"
    write_program(f"{small}/sbin/init", script)
    with boot(root, small, "--kill-signal", "SIGUSR1") as booted:
        booted.wait_for("up")
        assert booted.stop() == 3
    assert "asked" in booted.log()
    assert root.run("--boot", "--kill-signal", "SIGNONE", small).returncode == 2
    assert root.run("--kill-signal", "TERM", small, "true").returncode == 2


def test_unit_of_a_boot(root: Runner, small: HostPath) -> None:
    unit = root.command("unit", "--boot", small).stdout
    assert f" --boot {small}\n" in unit
    assert "TimeoutStopSec=95" in unit


def test_imported_settings(root: Runner, small: HostPath) -> None:
    write_program(f"{small}.nspawn", "[Exec]\nBoot=yes\n")
    try:
        assert root.command("import-nspawn", f"{small}.nspawn").stdout.endswith("\nboot = true\n")
    finally:
        os.unlink(f"{small}.nspawn")


def test_is_listed_as_booted(root: Runner, small: HostPath) -> None:
    with boot(root, small) as booted:
        booted.wait_for("sysinit ran")
        listed = root.command("ps", "--json").stdout
        assert f'"{booted.name}"' in listed
        assert '"is_booted": true' in listed


def test_joined_command_is_told_of_the_end(root: Runner, small: HostPath) -> None:
    with boot(root, small) as booted:
        booted.wait_for("sysinit ran")
        words = [*root.xbuild, "exec", booted.name, "sleep", "100"]
        with subprocess.Popen(words) as joined:
            booted.wait_until_joined("sh", "-c", "busybox ps | grep -q 'sleep 10[0]$'")
            assert booted.stop() == 0
            assert joined.wait(PATIENCE_S) in (137, 143)
