"""Which command gets a static qemu-user, on hosts known by their os-release and tools."""

from __future__ import annotations

import pytest

from xbuild.binary.arch import arch_named
from xbuild.emulation.packages import (
    command_for,
    install_command,
    package_command_for,
    parse_os_release,
    unattended_commands,
)

ARM64 = arch_named("aarch64")


@pytest.mark.parametrize(
    ("os_release", "tools", "command"),
    [
        ("ID=debian\nVERSION_ID=\"12\"", {"apt-get"}, "apt-get install qemu-user-static"),
        ("ID=debian\nVERSION_ID=13", {"apt-get"}, "apt-get install qemu-user"),
        ("ID=debian", {"apt-get"}, "apt-get install qemu-user"),
        ("ID=ubuntu\nVERSION_ID=\"24.04\"", {"apt-get"}, "apt-get install qemu-user-static"),
        ("ID=ubuntu\nVERSION_ID='25.04'", {"apt-get"}, "apt-get install qemu-user"),
        ("ID=linuxmint\nID_LIKE=ubuntu", {"apt-get"}, "apt-get install qemu-user-static"),
        ("ID=fedora\nVERSION_ID=42", {"dnf", "apt-get"}, "dnf install qemu-user-static"),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", {"dnf"}, "dnf install qemu-user-static"),
        ("ID=arch", {"pacman"}, "pacman -S qemu-user-static"),
        ("ID=opensuse-tumbleweed", {"zypper"}, "zypper install qemu-linux-user"),
        ("ID=alpine", {"apk"}, "apk add qemu-aarch64"),
        ("", {"apk"}, "apk add qemu-aarch64"),
        ("ID=nixos", set(), ""),
    ],
)  # fmt: skip
def test_the_command_is_the_hosts_own(os_release: str, tools: set[str], command: str) -> None:
    assert command_for(ARM64, parse_os_release(os_release), frozenset(tools)) == command


def test_gentoo_is_told_the_target_and_the_use_flag() -> None:
    command = command_for(ARM64, {"ID": "gentoo"}, frozenset({"emerge"}))
    assert 'QEMU_USER_TARGETS="aarch64"' in command
    assert "static-user" in command


@pytest.mark.parametrize(
    ("identity", "tool", "command"),
    [
        ("debian", "apt-get", "apt-get install fuse2fs"),
        ("arch", "pacman", "pacman -S fuse2fs"),
        ("alpine", "apk", "apk add fuse2fs"),
        ("gentoo", "emerge", "env USE=fuse emerge sys-fs/e2fsprogs"),
        ("nixos", "", ""),
    ],
)
def test_other_packages_go_by_the_same_managers(identity: str, tool: str, command: str) -> None:
    present = frozenset([tool] if tool else [])
    assert package_command_for("fuse2fs", {"ID": identity}, present) == command


def test_lines_that_are_no_assignments_are_ignored() -> None:
    text = '# comment\n\nNAME="A B"\nbroken\nBAD=\'x\nID=a\n'
    assert parse_os_release(text) == {"NAME": "A B", "ID": "a"}


def test_this_host_has_an_answer() -> None:
    assert isinstance(install_command(None), str)


@pytest.mark.parametrize(
    ("identity", "tool", "commands"),
    [
        (
            "ID=debian\nVERSION_ID=12",
            "apt-get",
            [
                "apt-get -q update",
                "env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300"
                " install qemu-user-static",
            ],
        ),
        ("ID=fedora", "dnf", ["dnf -y install qemu-user-static"]),
        ("ID=arch", "pacman", ["pacman --noconfirm --needed -S qemu-user-static"]),
        ("ID=opensuse-leap", "zypper", ["zypper --non-interactive install qemu-linux-user"]),
        (
            "ID=gentoo",
            "emerge",
            ["env QEMU_USER_TARGETS=aarch64 USE=static-user emerge --ask=n app-emulation/qemu"],
        ),
        ("ID=alpine", "apk", ["apk --update-cache add qemu-aarch64"]),
    ],
)
def test_unattended_commands_ask_nothing(identity: str, tool: str, commands: list[str]) -> None:
    found = unattended_commands(ARM64, parse_os_release(identity), frozenset({tool}))
    assert [" ".join(each) for each in found] == commands


def test_without_a_package_manager_there_is_no_command() -> None:
    assert unattended_commands(None, {"ID": "nixos"}, frozenset()) == ()
