"""How to get qemu-user on this host: the command of its own package manager.

Scope: naming a command for a person to run, or for ``xbuild setup`` once a person has agreed.
Nothing here installs anything.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from xbuild.binary.arch import Arch

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5)
_BIN = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")
# From these versions on the package qemu-user is the static one (qemu 9.1 in Debian).
_QEMU_USER_IS_STATIC = {"debian": (13,), "raspbian": (13,), "ubuntu": (25, 4)}

# Which os-release IDs go with which package manager; a host may have several of them installed.
_FAMILIES = {
    "apt-get": ("debian", "ubuntu", "raspbian"),
    "dnf": ("fedora", "rhel", "centos"),
    "pacman": ("arch", "archarm", "manjaro"),
    "zypper": ("suse", "opensuse", "sles"),
    "emerge": ("gentoo",),
    "apk": ("alpine",),
}
_VERBS = {"pacman": "-S", "apk": "add"}
# What has each one go ahead without a question of its own: a person was asked before.
_WITHOUT_QUESTIONS = {
    "apt-get": ("-y", "-o", "DPkg::Lock::Timeout=300"),
    "dnf": ("-y",),
    "pacman": ("--noconfirm", "--needed"),
    "zypper": ("--non-interactive",),
    "emerge": ("--ask=n",),
    "apk": ("--update-cache",),
}
# Gentoo's settings and names for packages that go by one name elsewhere.
_EBUILDS = {
    "fuse2fs": ("env USE=fuse ", "sys-fs/e2fsprogs"),
    "squashfuse": ("", "sys-fs/squashfuse"),
}


def install_command(arch: Arch | None) -> str:
    """Return the command that installs a static qemu-user for ``arch`` here, "" if unknown.

    None stands for all architectures. Begins with sudo unless run by root.
    """
    present = present_managers()
    command = command_for(arch, read_os_release(), present)
    return command if not command or os.geteuid() == 0 else f"sudo {command}"


def install_hint(arch: Arch | None) -> str:
    """Return the same as a hint, with another way out where the package manager is unknown."""
    command = install_command(arch)
    if command:
        setup = f"xbuild setup {arch.common_name}" if arch else "xbuild setup"
        return f"install a static qemu-user: {command}\nor have xbuild do it: {setup}"
    return "install a statically linked qemu-user, or name one with --interpreter"


def command_for(arch: Arch | None, os_release: Mapping[str, str], present: frozenset[str]) -> str:
    """Decide the command from os-release's fields and the package managers that are installed.

    The distribution's own package manager goes first, then its relatives' (ID_LIKE), then
    whichever is there.
    """
    tool = _chosen(os_release, present)
    return _command(tool, arch, os_release) if tool else ""


def unattended_commands(
    arch: Arch | None, os_release: Mapping[str, str], present: frozenset[str]
) -> tuple[tuple[str, ...], ...]:
    """Return the same command as argument lists that ask nothing, to be run by root in turn.

    All but the last may fail without harm. Empty where no package manager is known.
    """
    import shlex

    tool = _chosen(os_release, present)
    if not tool:
        return ()
    words = shlex.split(_command(tool, arch, os_release))
    at = words.index(tool) + 1
    command = (*words[:at], *_WITHOUT_QUESTIONS[tool], *words[at:])
    if tool == "apt-get":
        # Where the lists are there already, update only makes them younger.
        return ("apt-get", "-q", "update"), ("env", "DEBIAN_FRONTEND=noninteractive", *command)
    return (command,)


def present_managers() -> frozenset[str]:
    """Return the package managers that are installed here."""
    return frozenset(tool for tool in _FAMILIES if _is_installed(tool))


def _chosen(os_release: Mapping[str, str], present: frozenset[str]) -> str:
    ids = (os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split())
    for identity in ids:
        for tool, family in _FAMILIES.items():
            if identity.split("-")[0] in family and tool in present:
                return tool
    return next((tool for tool in _FAMILIES if tool in present), "")


def package_command(package: str) -> str:
    """Return the command that installs one of xbuild's other helpers here.

    Where the package manager is unknown, a sentence that names the package.
    """
    present = present_managers()
    command = package_command_for(package, read_os_release(), present)
    if not command:
        return f"install the package {package}"
    return command if os.geteuid() == 0 else f"sudo {command}"


def package_command_for(
    package: str, os_release: Mapping[str, str], present: frozenset[str]
) -> str:
    """Decide that command as command_for() does, "" where no package manager is known."""
    match _chosen(os_release, present):
        case "":
            return ""
        case "emerge":
            settings, name = _EBUILDS.get(package, ("", package))
            return f"{settings}emerge {name}"
        case tool:
            return f"{tool} {_VERBS.get(tool, 'install')} {package}"


def read_os_release() -> dict[str, str]:
    """Return the fields of this host's os-release(5), none where it has no such file."""
    for path in _OS_RELEASE:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return parse_os_release(file.read(65536))
        except OSError:
            continue
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    """Parse the shell-like assignments of os-release(5), ignoring lines that are none."""
    import shlex

    fields = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or not key.isidentifier():
            continue
        try:
            fields[key] = "".join(shlex.split(value))
        except ValueError:
            continue
    return fields


def _is_installed(tool: str) -> bool:
    return any(os.access(f"{directory}/{tool}", os.X_OK) for directory in _BIN)


def _command(tool: str, arch: Arch | None, os_release: Mapping[str, str]) -> str:
    match tool:
        case "apt-get":
            return f"apt-get install {_debian_package(os_release)}"
        case "dnf":
            return "dnf install qemu-user-static"
        case "pacman":
            return "pacman -S qemu-user-static"
        case "zypper":
            return "zypper install qemu-linux-user"
        case "emerge":
            targets = f'QEMU_USER_TARGETS="{arch.name}" ' if arch else ""
            return f"env {targets}USE=static-user emerge app-emulation/qemu"
        case _:
            return f"apk add qemu-{arch.name}" if arch else "apk add qemu-aarch64 qemu-arm"


def _debian_package(os_release: Mapping[str, str]) -> str:
    since = _QEMU_USER_IS_STATIC.get(os_release.get("ID", ""))
    if since is None:
        return "qemu-user-static"  # a derivative: new ones provide this name too
    version = os_release.get("VERSION_ID")
    if version is None:
        return "qemu-user"  # Debian testing and unstable have no VERSION_ID
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return "qemu-user" if numbers >= since else "qemu-user-static"
