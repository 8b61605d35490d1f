"""Networks of the container's own, in a network namespace that is the test's: see OUTSIDE."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.native_guest import PYTHON, NativeGuest, fill_native_tree
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.users import User
from xbuild.plan.networking import interface_name, mac_address
from xbuild.record import HostPath

NAME = f"web{os.getpid()}"  # no other session's
# A host with an address of its own, a name server, a service, one at loopback only, and a device
# for everyone as udev makes it. The arguments are run in it.
OUTSIDE = """
mount -t tmpfs none /dev/net
mknod -m 666 /dev/net/tun c 10 200
printf 'nameserver 10.9.9.1\\n' >"$1/resolv.conf"
mount --bind "$1/resolv.conf" /etc/resolv.conf
ip link set lo up
ip link add outside type bridge
ip address add 10.9.9.1/24 dev outside
ip link set outside up
ip route add default via 10.9.9.254 dev outside
/usr/bin/python3 -I -c "$2" "$1/ready" &
while [ ! -e "$1/ready" ]; do sleep 0.02; done
shift 2
status=0
"$@" || status=$?
kill $!
exit $status
"""
SERVERS = """
import os, socket, sys, threading
def answer_names(line):
    while True:
        query, asker = line.recvfrom(512)
        is_address = query[-4:-2] == bytes((0, 1))
        record = bytes((0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 9, 9, 1)) if is_address else b""
        header = query[:2] + bytes((0x81, 0x80, 0, 1, 0, int(is_address), 0, 0, 0, 0))
        line.sendto(header + query[12:] + record, asker)
def greet(listener, text):
    while True:
        line, _ = listener.accept()
        line.sendall(text)
        line.close()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("10.9.9.1", 53))
for address, text in (("10.9.9.1", b"outside"), ("127.0.0.1", b"loopback")):
    listener = socket.create_server((address, 8000))
    threading.Thread(target=greet, args=(listener, text), daemon=True).start()
open(sys.argv[1], "w").close()
answer_names(names)
"""
CLIENT = """
import socket, sys
def said(host, port, patience_s):
    try:
        with socket.create_connection((host, port), patience_s) as line:
            return line.recv(100).decode()
    except OSError as error:
        return type(error).__name__
print(said("service.test", 8000, 60), said("10.0.2.2", 8000, 5) != "loopback", sorted(
    name for _, name in socket.if_nameindex()))
"""
SERVER_INSIDE = """
import socket
with socket.create_server(("0.0.0.0", 80)) as listener:
    print("listening", flush=True)
    line, _ = listener.accept()
    line.sendall(b"inside")
    line.close()
"""
ASK_FROM_OUTSIDE = """
import socket, subprocess, sys
run = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
assert run.stdout.readline() == "listening\\n"
with socket.create_connection(("127.0.0.1", 18080), 60) as line:
    print(line.recv(100).decode(), run.wait())
"""


class Outside:
    """The test's own host, in which a guest is run by its user."""

    def __init__(self, guest: NativeGuest, place: HostPath) -> None:
        self.guest = guest
        self._place = place

    def run(
        self, *command: str, before: tuple[str, ...] = (), options: tuple[str, ...]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest; ``before`` it comes what starts xbuild outside."""
        words = self.guest.user.argv([*before, *self.guest.argv(*command, options=options)])
        apart = ["unshare", "--mount", "--net", "--propagation=private"]
        setting = ["sh", "-ec", OUTSIDE, "sh", self._place, SERVERS]
        return subprocess.run(
            [*apart, *setting, *words],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
            env=self.guest.user.environment(), cwd=self.guest.user.home, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def outside(
    runner: Runner, new_tree: Callable[[User], HostPath], reachable_directory: HostPath,
    tmp_path: os.PathLike[str],
) -> Outside:  # fmt: skip
    """A host of the test's own, for each kind of person."""
    require("root", os.geteuid() == 0, "makes network namespaces")
    require("slirp4netns", shutil.which("slirp4netns") is not None, "not installed")
    tree = new_tree(runner.user)
    fill_native_tree(tree, runner.user)
    place = os.path.join(reachable_directory, f"outside-{runner.kind}-{os.path.basename(tmp_path)}")
    os.mkdir(place)
    return Outside(NativeGuest(runner.user, runner.xbuild, tree), HostPath(place))


def test_private_network(outside: Outside) -> None:
    """Names and addresses of the outside are reached, what listens at its loopback is not."""
    done = outside.run(PYTHON, "-I", "-c", CLIENT, options=("--network", "private"))
    assert done.stdout == "outside True ['lo', 'tap0']\n", done.stderr
    assert done.returncode == 0


def test_port_leads_inside(outside: Outside) -> None:
    before = (PYTHON, "-I", "-c", ASK_FROM_OUTSIDE)
    options = ("-p", "127.0.0.1:18080:80")
    done = outside.run(PYTHON, "-I", "-c", SERVER_INSIDE, before=before, options=options)
    assert done.stdout == "inside 0\n", done.stderr


def test_port_that_is_taken(root: Runner, outside: Outside) -> None:
    done = outside.run("true", options=("--network=private", "-p", "10.9.9.1:8000:80"))
    assert done.returncode == 125
    assert "Cannot listen at 10.9.9.1:8000/tcp" in done.stderr


def test_without_the_device_the_reason_is_told(ranged: Runner) -> None:
    script = 'mount -t tmpfs none /dev/net; exec "$@"'
    command = ranged.user.argv(ranged.argv("--network=private", ranged.tree("arm64"), "true"))
    apart = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-ec", script, "sh"]
    done = subprocess.run(
        [*apart, *command], capture_output=True, text=True, check=False,
        env=ranged.user.environment(), cwd=ranged.user.home,
    )  # fmt: skip
    assert done.returncode == 125
    assert "modprobe tun" in done.stderr


def test_ports_need_a_network_of_ones_own(root: Runner) -> None:
    done = root.run("--network", "host", "-p", "80", root.tree("arm64"), "true")
    assert done.returncode == 2
    assert "--port is for --network private" in done.stderr


def test_helper_ends_with_a_launcher_that_is_killed(root: Runner) -> None:
    done = apart(
        root,
        """
        ip link add outside type bridge; ip address add 10.9.9.1/24 dev outside
        ip link set outside up; ip route add default via 10.9.9.2
        "$xbuild" run -p 18081:80 "$tree" -- sleep 1000 &
        while ! grep -q ' 00000000:46A1 ' /proc/net/tcp; do sleep 0.05; done
        kill -9 $!; wait || true
        while grep -q ' 00000000:46A1 ' /proc/net/tcp; do sleep 0.05; done
        echo "nobody listens"
        """,
    )
    assert done.stdout == "nobody listens\n", done.stderr


def apart(root: Runner, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in network and mount namespaces of its own; $xbuild, $tree and $name are set."""
    words = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-ec", script]
    values = {"xbuild": root.xbuild[0], "tree": root.tree("arm64"), "name": NAME}
    return root.user.run(words, env=root.user.environment(**values))


def test_veth(root: Runner) -> None:
    """The guest's end has an address of its own and leads outside."""
    script = "cat /sys/class/net/host0/address; grep host0 /proc/net/route; echo ready"
    done = apart(root, f'"$xbuild" run --name "$name" --network veth "$tree" -- sh -c "{script}"')
    lines = done.stdout.splitlines()
    with open("/etc/machine-id", encoding="ascii") as file:
        machine = file.read().strip()
    assert lines[0] == mac_address(machine, NAME, "guest"), done.stderr
    assert [line.split()[1] for line in lines[1:3]].count("00000000") == 1
    assert lines[-1] == "ready"


def test_veth_speaks_with_the_host(root: Runner) -> None:
    done = apart(
        root,
        """
        "$xbuild" run --name "$name" --network veth "$tree" -- sleep 1000 &
        while ! ip -4 -br address show "ve-$name" 2>/dev/null | grep -q 169.254; do sleep 0.05; done
        ip -br link show "ve-$name"
        address=$(ip -4 -br address show "ve-$name" | tr -s ' ' | cut -d' ' -f3 | cut -d/ -f1)
        peer=${address%.*}.$((${address##*.} + 1))
        /usr/bin/python3 -c '
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], 9), 60)
    except ConnectionRefusedError:
        print("refused by the guest itself")
        break
    except OSError:
        time.sleep(0.05)  # its end is not up yet' "$peer"
        kill $!; wait $! || true
        while ip -br link | grep -q ve-; do sleep 0.05; done
        echo gone
        """,
    )
    lines = done.stdout.splitlines()
    with open("/etc/machine-id", encoding="ascii") as file:
        assert mac_address(file.read().strip(), NAME, "host") in lines[0], done.stderr
    assert lines[1:] == ["refused by the guest itself", "gone"]


def test_bridge(root: Runner) -> None:
    done = apart(
        root,
        """
        ip link add br0 type bridge
        "$xbuild" run --name "$name" --network bridge:br0 "$tree" -- sleep 1000 &
        while ! ip -br link show master br0 | grep -q "vb-$name"; do sleep 0.05; done
        ip -br link show master br0; kill $!; wait $! || true
        "$xbuild" run --name "$name" --network bridge:none "$tree" -- true || echo $?
        """,
    )
    assert re.match(rf"vb-{NAME}@\S+ +", done.stdout)
    assert done.stdout.endswith("125\n")
    assert "Device does not exist" in done.stderr


def test_interfaces_are_for_root(ranged: Runner) -> None:
    for kind in ("veth", "bridge:br0"):
        done = ranged.run("--network", kind, ranged.tree("arm64"), "true")
        assert done.returncode == 125
        assert "--network private" in done.stderr


@pytest.mark.parametrize("text", ["internet", "bridge:", "bridge:a/b", "bridge:0123456789abcdef"])
def test_what_is_no_network(root: Runner, text: str) -> None:
    assert root.run("--network", text, root.tree("arm64"), "true").returncode == 2


def test_names_and_addresses_are_stable_and_apart() -> None:
    names = ["web", "web-2", "a-name-that-is-long-1", "a-name-that-is-long-2"]
    interfaces = {interface_name("ve-", name) for name in names}
    assert len(interfaces) == len(names)
    assert {len(name) <= 15 for name in interfaces} == {True}
    addresses = {mac_address("id", name, side) for name in names for side in ("host", "guest")}
    assert len(addresses) == 2 * len(names)
    assert {int(address[:2], 16) & 3 for address in addresses} == {2}
    assert mac_address("id", "web", "host") == mac_address("id", "web", "host")
    assert mac_address("id", "web", "host") != mac_address("other", "web", "host")
