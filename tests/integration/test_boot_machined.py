"""What the host's systemd is told of a boot: machined by a real bus, the journal by real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bootable import boot
from tests.runs import Runner, write_program
from xbuild.record import HostPath

NAME = f"reg-{os.getpid()}"
_ID = "0123456789abcdef0123456789abcdef"
_INITTAB = "::sysinit:/bin/echo up\n::respawn:/bin/sleep 1000\n"
_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
# A service that takes machined's place on the bus, writes down what it is called with, and answers.
_RECORDER = """
import sys
from jeepney import DBusAddress, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
connection = open_dbus_connection(sys.argv[1])
connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.machine1"))
print("ready", flush=True)
while True:
    message = connection.receive()
    if message.header.message_type != MessageType.method_call:
        continue
    fields = {int(key): value for key, value in message.header.fields.items()}
    print(fields[3], *message.body, sep="|", flush=True)
    if sys.argv[2] == "refuses":
        connection.send(new_error(message, "org.freedesktop.machine1.Exists", "s", ("taken",)))
    elif fields[3] == "RegisterMachine":
        connection.send(new_method_return(message, "o", ("/org/freedesktop/machine1/machine/x",)))
    else:
        connection.send(new_method_return(message))
"""


@pytest.fixture
def tree(root: Runner, busybox_tree: Callable[..., HostPath]) -> HostPath:
    tree: HostPath = busybox_tree("arm64", root.user)
    write_program(f"{tree}/etc/inittab", _INITTAB, 0o644)
    write_program(f"{tree}/etc/machine-id", f"{_ID}\n", 0o444)
    return tree


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """The address of a D-Bus daemon of the test's own."""
    path = tmp_path / "bus"
    config = tmp_path / "bus.conf"
    config.write_text(_CONFIG.format(path=path))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline()
        yield f"unix:path={path}"
        daemon.terminate()


@contextmanager
def recorder(bus: str, manner: str = "answers") -> Iterator[list[str]]:
    """Have somebody be machined on the bus; what it was called with is in the list afterwards."""
    calls: list[str] = []
    command = [sys.executable, "-c", _RECORDER, bus, manner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield calls
        process.terminate()
        calls += process.stdout.read().splitlines()


def on_bus(runner: Runner, bus: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = runner.user.environment(DBUS_SYSTEM_BUS_ADDRESS=bus)
    return runner.command(*words, env=environment)


@pytest.mark.parametrize("choice", ["yes", "auto"])
def test_a_boot_is_registered_while_it_lives(
    root: Runner, tree: HostPath, bus: str, choice: str
) -> None:
    with recorder(bus) as calls:
        done = on_bus(root, bus, "start", "--boot", "--register", choice, "--name", NAME, tree)
        assert done.returncode == 0, done.stderr
        leader = root.command("exec", NAME, "sh", "-c", "readlink /proc/1/ns/pid").stdout.strip()
        [pid] = [p for p in filter(str.isdigit, os.listdir("/proc")) if _is_first(p, leader)]
        assert root.command("stop", NAME).returncode == 0
    number = [int(_ID[at : at + 2], 16) for at in range(0, 32, 2)]
    first, last = calls
    assert first.split("|") in (
        ["RegisterMachine", NAME, str(number), "xbuild", "container", pid, tree],
        ["RegisterMachine", NAME, str(bytes(number)), "xbuild", "container", pid, tree],
    )
    assert last == f"UnregisterMachine|{NAME}"


def _is_first(pid: str, namespace: str) -> bool:
    """Tell whether a process is the process 1 of that PID namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace and line.split()[-1] == "1"
    except (OSError, StopIteration):
        return False


def test_nobody_there_is_an_error_or_nothing(root: Runner, tree: HostPath, bus: str) -> None:
    """On a bus without machined, and without a bus at all."""
    for address in (bus, "unix:path=/nonexistent/bus"):
        done = on_bus(root, address, "run", "--boot", "--register", "yes", tree)
        assert done.returncode == 125
        assert "Cannot register with systemd-machined" in done.stderr
    write_program(f"{tree}/sbin/init", "#!/bin/sh\nexit 7\n")
    for address in (bus, "unix:path=/nonexistent/bus"):
        done = on_bus(root, address, "run", "--boot", "--register", "auto", tree)
        assert (done.returncode, "machined" in done.stderr) == (7, False)


def test_refusal_is_passed_on(root: Runner, tree: HostPath, bus: str) -> None:
    with recorder(bus, "refuses"):
        done = on_bus(root, bus, "run", "--boot", "--register", "yes", tree)
    assert done.returncode == 125
    assert "taken" in done.stderr


@pytest.fixture
def journals() -> Iterator[str]:
    """The host's /var/log/journal, made for the test where there is none."""
    place = "/var/log/journal"
    is_ours = not os.path.exists(place)
    if is_ours:
        os.mkdir(place)
    yield place
    if os.path.islink(f"{place}/{_ID}"):
        os.unlink(f"{place}/{_ID}")
    if os.path.isdir(f"{place}/{_ID}"):
        subprocess.run(["rm", "-r", f"{place}/{_ID}"], check=True)
    if is_ours:
        os.rmdir(place)


def test_journal_kept_on_the_host(root: Runner, tree: HostPath, journals: str) -> None:
    write_program(f"{tree}/sbin/init", f"#!/bin/sh\necho entry >/var/log/journal/{_ID}/x\n")
    refused = root.run("--boot", "--link-journal", "host", tree)
    assert refused.returncode == 125
    assert f"mkdir -p {journals}/{_ID}" in refused.stderr
    os.mkdir(f"{journals}/{_ID}")
    for choice in ("host", "auto"):
        done = root.run("--boot", "--link-journal", choice, tree)
        assert done.returncode == 0, done.stderr
        assert Path(f"{journals}/{_ID}/x").read_text() == "entry\n"
        os.unlink(f"{journals}/{_ID}/x")
    assert not os.path.exists(f"{tree}/var")


def test_link_to_the_journal_in_the_tree(root: Runner, tree: HostPath, journals: str) -> None:
    refused = root.run("--boot", "--link-journal", "guest", tree)
    assert refused.returncode == 125
    assert f"mkdir -p {tree}/var/log/journal/{_ID}" in refused.stderr
    os.makedirs(f"{tree}/var/log/journal/{_ID}")
    write_program(f"{tree}/sbin/init", f"#!/bin/sh\necho entry >/var/log/journal/{_ID}/x\n")
    for _ in range(2):  # a link that is there already is no error
        done = root.run("--boot", "--link-journal", "guest", tree)
        assert done.returncode == 0, done.stderr
        assert Path(f"{journals}/{_ID}/x").read_text() == "entry\n"


def test_journal_of_a_tree_without_an_id(root: Runner, tree: HostPath, journals: str) -> None:
    del journals
    write_program(f"{tree}/etc/machine-id", "uninitialized\n", 0o644)
    write_program(f"{tree}/sbin/init", "#!/bin/sh\n")
    assert "machine-id" in root.run("--boot", "--link-journal", "host", tree).stderr
    assert root.run("--boot", "--link-journal", "auto", tree).returncode == 0


def test_both_are_for_boots(root: Runner, tree: HostPath) -> None:
    for words in (("--register", "yes"), ("--link-journal", "host")):
        assert root.run(*words, tree, "true").returncode == 2
    with boot(root, tree, "--register", "no", "--link-journal", "no") as booted:
        booted.wait_for("up")
