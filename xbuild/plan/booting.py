"""Deciding on a boot: which init a tree has, what it is given, and how it is asked to stop.

Off the start path: loaded for ``--boot``. Which signals and commands mean what is in systemd(1),
init(8) of sysvinit, openrc-init(8), runit(8) and busybox's init.c; what systemd wants of a
container in systemd's CONTAINER_INTERFACE document.
"""

from __future__ import annotations

import re
import signal
import stat

from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan import steps
from xbuild.plan.guest import api_path
from xbuild.plan.inits import Init
from xbuild.plan.limits import ControlGroup, LimitResources, MountCgroup
from xbuild.record import GuestPath, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.plan.emulate import Emulation
    from xbuild.plan.guest import Guest
    from xbuild.plan.ids import Identities
    from xbuild.plan.inits import InitKind
    from xbuild.plan.limiting import Hierarchies
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Step
    from xbuild.tree.resolve import TreeReader

PLACES = (
    *("/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/openrc-init"),
    *("/usr/sbin/openrc-init", "/sbin/runit-init", "/usr/sbin/runit-init", "/bin/init", "/init"),
)
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_OPENRC = ("/sbin/openrc", "/usr/sbin/openrc")
_BY_NAME: dict[str, InitKind] = {
    "systemd": "systemd",
    "openrc-init": "openrc-init",
    "busybox": "busybox",
    "runit-init": "runit",
    "runit": "runit",
}
_BY_CONTENT: tuple[tuple[bytes, InitKind], ...] = (
    (b"BusyBox v", "busybox"),
    (b"/run/openrc/init.ctl", "openrc-init"),
    (b"/etc/runit/stopit", "runit"),
    (b"/initctl", "sysvinit"),
)
_PROGRAM_LIMIT = 8 << 20  # bytes
_HALT = 37  # systemd(1): SIGRTMIN+3, where the guest's C library has SIGRTMIN at 34, as glibc does
_SHARED = re.compile(r"libsystemd-shared-(\d{3})\b")
_IMPORT_CREDENTIAL_SINCE = 254
_EXECUTOR_SINCE = 256  # by then services are started through pidfd_spawn(3)
_QEMU_LACKING = 8  # known to fail with 7.2, and to work with 10.0
_CREDENTIALS = ("LoadCredential", "LoadCredentialEncrypted", "SetCredential")
# What asks for a mount namespace, and the value that asks for none: systemd.exec(5).
_SANDBOXES = (
    *(f"{name}=no" for name in ("PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateIPC")),
    *(f"Protect{name}=no" for name in ("System", "Home", "ControlGroups", "Hostname", "Clock")),
    *(f"ProtectKernel{name}=no" for name in ("Tunables", "Modules", "Logs")),
    *("ProtectProc=default", "ProcSubset=all", "MemoryPressureWatch=off"),
    *(f"{name}=" for name in ("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths")),
    *(f"{name}=" for name in ("ExecPaths", "NoExecPaths", "TemporaryFileSystem")),
)
# Type-wide drop-ins: systemd.unit(5).
_DROP_IN = "/systemd/system/service.d/10-xbuild.conf"


def with_init(request: Request, reader: TreeReader) -> Request:
    """Return a request whose command is the tree's init. Raises TargetError where there is none."""
    path, argv = _find_init(request, reader)
    init = _describe_init(path, argv, reader)
    if request.kill_signal is not None:
        init = replace(init, stop_signal=0, stop_command=_kill(request.kill_signal))
    environment = request.environment
    if init.kind != "systemd" and any(reader.lookup(GuestPath(each)) for each in _OPENRC):
        # By this OpenRC knows to leave the machine's own affairs alone (rc_sys, rc.conf).
        environment = (("container", "lxc"), *environment)
    return replace(request, command=(*argv, *request.command), init=init, environment=environment)


def _find_init(request: Request, reader: TreeReader) -> tuple[GuestPath, tuple[str, ...]]:
    for place in PLACES:
        if _is_program(reader, place):
            return reader.resolve(GuestPath(place)), (place,)
    for place in _BUSYBOX:
        if _is_program(reader, place):
            return reader.resolve(GuestPath(place)), (place, "init")
    raise TargetError(
        f"{request.target} has no init to boot: neither {', '.join(PLACES)} nor busybox",
        "install one in it (systemd-sysv, sysvinit-core, runit-init, ...), or run a command",
    )


def _is_program(reader: TreeReader, place: str) -> bool:
    try:
        found = reader.lookup(GuestPath(place))
    except TargetError:
        return False
    return found is not None and stat.S_ISREG(found.mode) and bool(found.mode & 0o111)


def _describe_init(path: GuestPath, argv: tuple[str, ...], reader: TreeReader) -> Init:
    kind = _BY_NAME.get(path.rpartition("/")[2]) or _kind_by_content(path, reader)
    match kind:
        case "systemd":
            return Init(kind, 0, _kill(str(_HALT)), _systemd_version(reader))
        case "sysvinit" | "runit":
            return Init(kind, 0, (argv[0], "0"))
        case "busybox":
            return Init(kind, signal.SIGUSR2)
        case _:
            return Init(kind, signal.SIGTERM)


def _kind_by_content(path: GuestPath, reader: TreeReader) -> InitKind:
    with reader.open(path) as file:
        content = file.read(_PROGRAM_LIMIT)
    return next((kind for mark, kind in _BY_CONTENT if mark in content), "other")


def _kill(name: str) -> tuple[str, ...]:
    option = f"-{name}" if name.isdigit() else f"-s {name}"
    return ("/bin/sh", "-c", f"kill {option} 1")


def _systemd_version(reader: TreeReader) -> int:
    """Return it by the name of its library: /usr/lib/TRIPLET/systemd/libsystemd-shared-252.so."""
    for top in ("/usr/lib", "/lib"):
        for name in ("", *_names(reader, top)):
            for file in _names(reader, f"{top}/{name}/systemd"):
                if found := _SHARED.match(file):
                    return int(found[1])
    return 0


def _names(reader: TreeReader, directory: str) -> tuple[str, ...]:
    try:
        return reader.listdir(GuestPath(directory))
    except TargetError:
        return ()


def check_boot(request: Request) -> None:
    """Raise UsageError for what a boot cannot have."""
    if request.user is not None:
        raise UsageError(
            "--user does not go with --boot: an init is root",
            "boot, and join as that user: xbuild exec --user USER NAME",
        )
    if request.held:
        raise UsageError("A container that is held runs nothing", "xbuild start --boot TREE")
    if request.directory is not None:
        raise UsageError("--chdir does not go with --boot: an init starts in /", "leave it out")


def control_group(request: Request, found: Hierarchies, limits: LimitResources) -> LimitResources:
    """Return limits with a group of version 2 that the guest's init has for its own.

    Raises HostUnable where there is none to be had.
    """
    if request.init is None or request.init.kind != "systemd":
        return limits
    parent = dict(found.places).get("")
    if parent is None:
        raise HostUnable(
            "Cannot boot systemd: it needs control groups of version 2, and none are mounted here",
            "as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or a directory below it",
        )
    if parent not in found.writable:
        raise HostUnable(
            "Cannot boot systemd: it needs a control group of its own, and only root may make one"
            f" in {parent}",
            "start xbuild by systemd-run --user --scope -p Delegate=yes -- xbuild ...; or have root"
            f" give you a group: mkdir {parent}/mine, chown it and its cgroup.procs to you, and"
            " write your shell's process number to that",
        )
    others = tuple(group for group in limits.groups if group.parent != parent)
    own = next((group for group in limits.groups if group.parent == parent), None)
    home = found.home or parent
    delegated = replace(own or ControlGroup(parent, home, ()), is_delegated=True)
    return LimitResources((delegated, *others))


def view_steps(
    request: Request, guest: Guest, ids: Identities, emulations: tuple[Emulation, ...]
) -> Iterator[Step]:
    """Yield what an init finds in its view besides what every command does."""
    assert request.init is not None
    dev, run = api_path(guest, "/dev"), api_path(guest, "/run")
    yield steps.Symlink(GuestPath(f"{dev}/console"), "pts/0", ids.owner)
    if request.init.kind != "systemd":  # that has a unit for a container's console
        yield steps.Symlink(GuestPath(f"{dev}/tty1"), "pts/0", ids.owner)
        return
    yield MountCgroup(GuestPath(f"{api_path(guest, '/sys')}/fs/cgroup"))
    if emulations[0].way in ("private", "host"):
        # clone(CLONE_NEWNS) is EINVAL under qemu-user, so that units with a credential would fail.
        names = list(_CREDENTIALS)
        if request.init.version >= _IMPORT_CREDENTIAL_SINCE:
            names.append("ImportCredential")
        path = GuestPath(run + _DROP_IN)
        directories = path.split("/")
        for depth in range(len(run.split("/")) + 1, len(directories)):
            yield steps.Directory(GuestPath("/".join(directories[:depth])), 0o755, ids.owner)
        lines = ["[Service]", *(f"{name}=" for name in names)]
        lines += _SANDBOXES if request.init.version >= _EXECUTOR_SINCE else ()
        yield steps.WriteFile(path, "".join(f"{line}\n" for line in lines), ids.owner)


def check_emulated_init(request: Request, emulations: tuple[Emulation, ...]) -> tuple[str, ...]:
    """Return notes on what an init cannot do under this emulator.

    Raises HostUnable where it is known that nothing would start.
    """
    init, emulation = request.init, emulations[0]
    if init is None or init.version < _EXECUTOR_SINCE or emulation.way not in ("private", "host"):
        return ()
    version = None if emulation.interpreter is None else emulation.interpreter.version
    major = (version or "").partition(".")[0]
    if major.isdecimal() and int(major) < _QEMU_LACKING:
        name = emulation.arch.name
        raise HostUnable(
            f"systemd {init.version} starts services by clone(2) with a pidfd, which qemu"
            f" {version} refuses (EINVAL): none would run",
            f"a newer one: xbuild setup --version 10 {name}, then --interpreter {name}@10",
        )
    return (
        f"under qemu-user, systemd {init.version} cannot enter mount namespaces: the sandboxes of"
        " its units (PrivateTmp=, ProtectSystem= and the like) are off",
    )
