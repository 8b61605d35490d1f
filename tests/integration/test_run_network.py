"""Names and networks: resolv.conf, hosts, and a network of loopback only."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes
from tests.trees import tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]


def host_text() -> str:
    with open("/etc/resolv.conf") as file:
        return file.read()


def greet(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello\n")


def replace_resolv_conf(tree: HostPath, link: str | None) -> None:
    path = f"{tree}/etc/resolv.conf"
    if os.path.lexists(path):
        os.remove(path)
    if link is not None:
        os.symlink(link, path)


def test_resolv_conf_is_the_host_s_read_only(runner: Runner) -> None:
    script = "cat /etc/resolv.conf; echo x 2>/dev/null >>/etc/resolv.conf || echo refused >&2"
    assert runner.shell("arm64", script) == host_text()


@pytest.mark.parametrize(
    "link",
    [
        "../run/systemd/resolve/stub-resolv.conf",
        "/run/systemd/resolve/resolv.conf",
        "../../../../../../run/resolvconf/resolv.conf",
        "/var/run/resolv.conf",
        "/tmp/resolv.conf",
    ],
)
@pytest.mark.parametrize("kind", ["root", "ranged"])
def test_dangling_links_into_what_is_ours(
    request: pytest.FixtureRequest, kind: str, link: str, fresh_tree: Fresh
) -> None:
    """Where systemd-resolved or resolvconf would put it; the link stays as it is."""
    runner: Runner = request.getfixturevalue(kind)
    tree = fresh_tree("arm64", runner.user)
    replace_resolv_conf(tree, link)
    before = tree_hash(tree)
    done = runner.run(tree, "cat", "/etc/resolv.conf")
    assert (done.stdout, notes(done)) == (host_text(), [])
    assert tree_hash(tree) == before


def test_link_to_another_file_of_the_tree(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    replace_resolv_conf(tree, "/etc/dns/resolv.conf")
    os.mkdir(f"{tree}/etc/dns")
    with open(f"{tree}/etc/dns/resolv.conf", "w") as file:
        file.write("nameserver 192.0.2.1\n")
    assert runner.output(tree, "cat", "/etc/resolv.conf") == host_text()
    with open(f"{tree}/etc/dns/resolv.conf") as file:
        assert file.read() == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize("link", [None, "/nowhere/resolv.conf", "resolv.conf", "/etc", "/proc/x"])
def test_nothing_to_cover(root: Runner, fresh_tree: Fresh, link: str | None) -> None:
    """Missing, dangling, a loop, a directory: the run goes on and says what to do."""
    tree = fresh_tree("arm64", root.user)
    replace_resolv_conf(tree, link)
    before = tree_hash(tree)
    done = root.run(tree, "true")
    assert done.returncode == 0, done.stderr
    assert any("/etc/resolv.conf" in note for note in notes(done)), done.stderr
    assert tree_hash(tree) == before


def test_missing_resolv_conf_under_an_overlay(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    replace_resolv_conf(tree, None)
    assert runner.output("-x", tree, "cat", "/etc/resolv.conf") == host_text()
    assert not os.path.lexists(f"{tree}/etc/resolv.conf")


def test_hosts_are_the_host_s_and_one_more(runner: Runner) -> None:
    with open("/etc/hosts") as file:
        wanted = file.read().rstrip("\n") + "\n127.0.1.1\tboard\n"
    script = "cat /etc/hosts; { echo x >>/etc/hosts; } 2>/dev/null && echo written"
    assert runner.shell("arm64", script + " || :", "--hostname", "board") == wanted


def test_hosts_that_are_no_file(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    os.remove(f"{tree}/etc/hosts")
    os.symlink("hosts", f"{tree}/etc/hosts")
    assert root.output(tree, "readlink", "/etc/hosts") == "hosts\n"


def test_network_of_the_host_is_shared(runner: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=greet, args=(server,), daemon=True)
        thread.start()
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3"
        shown = runner.output(runner.tree("arm64"), "bash", "-c", script)
        thread.join(10)
    assert shown == "hello\n"


def test_network_none_has_loopback_only(runner: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
            ls /sys/class/net; cut -d: -f1 /proc/net/dev | tail -n +3
            cat /sys/class/net/lo/flags
            (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>&1 | grep -cm1 refused
            """
        shown = runner.output("--network", "none", runner.tree("arm64"), "bash", "-c", script)
    assert shown.split() == ["lo", "lo", "0x9", "1"]


def test_network_none_leaves_resolv_conf_alone(root: Runner) -> None:
    tree = root.tree("arm64")
    with open(f"{tree}/etc/resolv.conf") as file:
        assert root.output("--network=none", tree, "cat", "/etc/resolv.conf") == file.read()


def test_loopback_carries_traffic(runner: Runner) -> None:
    """Two programs inside talk over their own 127.0.0.1: the address is there, the device up."""
    script = "exec 3<>/dev/udp/127.0.0.1/9; echo x >&3; echo sent"
    tree = runner.tree("arm64")
    assert runner.output("--network", "none", tree, "bash", "-c", script) == "sent\n"


def test_sysfs_is_of_the_container_s_network(root: Runner) -> None:
    names = sorted(os.listdir("/sys/class/net"))
    assert sorted(root.shell("arm64", "ls /sys/class/net").split()) == names
    script = "touch /sys/x 2>/dev/null || echo x 2>/dev/null >/sys/class/net/lo/mtu || echo refused"
    assert root.shell("arm64", script, "--network", "none") == "refused\n"
