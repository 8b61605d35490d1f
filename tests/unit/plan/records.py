"""Facts made by hand: hosts, surveys, guests and emulations for plans that touch nothing."""

from __future__ import annotations

import stat
from typing import Literal

from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import Interpreter
from xbuild.emulation.registry import Entry
from xbuild.plan.disk import Disk, Seat, Volume
from xbuild.plan.emulate import Emulation
from xbuild.plan.guest import API_DIRECTORIES, Account, Guest, Place
from xbuild.plan.host import PROC_READ_ONLY, Host, Mount, SubIds
from xbuild.plan.make import make_plan
from xbuild.plan.native import Native
from xbuild.plan.request import Request, TmpfsRequest
from xbuild.plan.steps import Plan
from xbuild.record import GuestPath, HostPath, Record
from xbuild.toolset.manifest import Tool, Toolset
from xbuild.toolset.match import Left, Match, Use
from xbuild.tree.survey import Survey

TREE = HostPath("/srv/trees/board")
DIRECTORY = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
_ALL = SubIds(0, 0xFFFFFFFF)

ROOT_MOUNT = Mount(HostPath("/"), "ext4", 20, 1)
PROC_MOUNT = Mount(HostPath("/proc"), "proc", 21, 20)
_CGROUP = "/sys/fs/cgroup"
V1_GROUPS = tuple(
    (name, HostPath(f"{_CGROUP}/{name}/a")) for name in ("memory", "cpu", "pids", "io")
)
V2_SCOPE = HostPath(f"{_CGROUP}/user.slice/x.scope")


def host(**changes: object) -> Host:
    """Return an ordinary machine seen by its root."""
    facts: dict[str, object] = {
        "kernel": (6, 12),
        "euid": 0,
        "egid": 0,
        "privileged": True,
        "can_map_ids": True,
        "no_new_privs": False,
        "has_own_proc": True,
        "own_uids": (_ALL,),
        "own_gids": (_ALL,),
        "has_setgroups": True,
        "sub_uids": (),
        "sub_gids": (),
        "has_newuidmap": False,
        "mounts": (ROOT_MOUNT, PROC_MOUNT),
        "devices": ("null", "zero", "full", "random", "urandom", "tty"),
        "proc_entries": PROC_READ_ONLY,
        "changeable_proc_entries": ("acpi", "scsi"),
        "resolv_conf": HostPath("/run/systemd/resolve/stub-resolv.conf"),
        "hosts": "127.0.0.1\tlocalhost\n",
    }
    return Host(**(facts | changes))  # type: ignore[arg-type]  # fields by name


def user_host(**changes: object) -> Host:
    """Return the same machine seen by an ordinary user with subordinate ids."""
    facts: dict[str, object] = {
        "euid": 1000,
        "egid": 1000,
        "privileged": False,
        "can_map_ids": False,
        "sub_uids": (SubIds(100000, 65536),),
        "sub_gids": (SubIds(100000, 65536),),
        "has_newuidmap": True,
    }
    return host(**(facts | changes))


def survey(arch: str = "aarch64", **changes: object) -> Survey:
    """Return a Debian-like tree of one architecture, which belongs to root."""
    facts: dict[str, object] = {
        "target": TREE,
        "kind": "directory",
        "arch": arch_named(arch),
        "programs": ((arch, 256),),
        "complete": False,
        "libc": "glibc",
        "loader": GuestPath("/lib/ld-linux-aarch64.so.1"),
        "shell": GuestPath("/bin/bash"),
        "distribution": None,
        "leading_program": GuestPath("/usr/bin/dash"),
        "is_merged_usr": True,
        "owner": 0,
        "owner_gid": 0,
        "architectures": (arch,),
    }
    return Survey(**(facts | changes))  # type: ignore[arg-type]  # fields by name


def place(path: str, *missing: str, mode: int = DIRECTORY, covered: bool = False) -> Place:
    """Return a place: a directory that is there, unless ``missing`` names follow."""
    return Place(GuestPath(path), missing, mode, covered)


def file(path: str) -> Place:
    """Return the place of a regular file."""
    return place(path, mode=FILE)


def guest(**changes: object) -> Guest:
    """Return what a Debian-like tree has where a container mounts."""
    facts: dict[str, object] = {
        "api": tuple(place(path) for path in API_DIRECTORIES),
        "resolv_conf": file("/etc/resolv.conf"),
        "hosts": file("/etc/hosts"),
        "binds": (),
        "source_modes": (),
        "tmpfs": (),
        "interpreters": (),
        "account": Account("root", 0, 0, (), GuestPath("/root"), None),
        "home_exists": True,
    }
    return Guest(**(facts | changes))  # type: ignore[arg-type]  # fields by name


def request(**changes: object) -> Request:
    """Return a request to run ``make`` in the tree."""
    facts: dict[str, object] = {"target": TREE, "command": ("make", "all")}
    return Request(**(facts | changes))  # type: ignore[arg-type]  # fields by name


def private(arch: str = "aarch64") -> Emulation:
    """Return an architecture that a private registry emulates."""
    path = HostPath(f"/usr/bin/qemu-{arch}-static")
    return Emulation(
        arch_named(arch), "private", Interpreter(path, arch_named(arch), "7.2", "found in /usr/bin")
    )


def by_host(arch: str = "aarch64", *, flags: str) -> Emulation:
    """Return an architecture that an entry of the host's emulates."""
    path = HostPath(f"/usr/libexec/qemu-binfmt/{arch}")
    entry = Entry(f"qemu-{arch}", True, path, frozenset(flags), 0, b"\x7fELF", b"\xff" * 4)
    if "F" in flags:
        return Emulation(arch_named(arch), "host", entry=entry)
    interpreter = Interpreter(path, arch_named(arch), None, "named by an entry")
    return Emulation(arch_named(arch), "host", interpreter, entry)


IMAGE = HostPath("/srv/images/board.img")
_MIB = 1 << 20


def disk(**changes: object) -> Disk:
    """Return a card's image: firmware in a FAT, the root in an ext4 that is checked first."""
    boot = Volume(1, 4 * _MIB, 256 * _MIB, "vfat")
    facts: dict[str, object] = {
        "image": IMAGE,
        "size": 2048 * _MIB,
        "mtime_ns": 1,
        "is_exclusive": True,
        "root": Volume(2, 260 * _MIB, 1788 * _MIB, "ext4", check=("/sbin/e2fsck", "-f", "-y")),
        "seats": (Seat(boot, place("/boot/firmware"), GuestPath("/boot/firmware")),),
    }
    return Disk(**(facts | changes))  # type: ignore[arg-type]  # fields by name


def served_disk() -> Disk:
    """Return a card's image as programs serve it for an ordinary user, with /home apart."""
    program = ("/usr/bin/fuse2fs", "-f", "-s", "-o")
    home = Volume(
        3, 2048 * _MIB, _MIB, "ext4", read_only=True, server=(*program, "offset=2147483648,ro")
    )
    return disk(
        root=Volume(
            2,
            260 * _MIB,
            1788 * _MIB,
            "ext4",
            check=("/sbin/e2fsck", "-f", "-y"),
            server=(*program, "offset=272629760"),
        ),
        seats=(Seat(home, place("/home"), GuestPath("/home")),),
    )


class Facts(Record):
    """Everything that a plan is made of."""

    request: Request
    survey: Survey
    host: Host
    guest: Guest
    emulations: tuple[Emulation, ...]
    disk: Disk | None = None
    native: Native | None = None


def native(way: Literal["exec", "bind"] = "exec", *, notes: tuple[str, ...] = ()) -> Native:
    """Return a set that knows three programs of the tree, of which fast use takes two."""
    tools = (
        Tool(GuestPath("/usr/bin/aarch64-linux-gnu-as"), "a1", "assembler", "usr/bin/as",
             drops_preload=True, level="exact", verdict="identical"),
        Tool(GuestPath("/usr/bin/aarch64-linux-gnu-g++-14"), "a2", "driver", "usr/bin/g++-14",
             emulate_for=("*=native",), level="fast", reason="it omits an option"),
        Tool(GuestPath("/usr/bin/uname"), "a3", "coreutils", reason="it tells the machine"),
    )  # fmt: skip
    toolset = Toolset(
        *("aarch64", "x86_64", "Debian trixie"),
        *((), tools, ()),
        corpus="1",
        digest="ab" * 32,
        directory=HostPath("/home/joe/.cache/xbuild/native/sets/" + "ab" * 32),
    )
    uses = tuple(Use(tool, 4096, 10**18 + 1, 10**18 + 2) for tool in tools[:2])
    left = (Left(tools[2], "it tells the machine"),)
    return Native(Match(toolset, "fast", uses, left), way, notes)


def facts(**changes: object) -> Facts:
    """Return the facts of ``make`` in an arm64 tree by root, with some of them changed."""
    all_: dict[str, object] = {
        "request": request(),
        "survey": survey(),
        "host": host(),
        "guest": guest(),
        "emulations": (private(),),
    }
    return Facts(**(all_ | changes))  # type: ignore[arg-type]  # fields by name


def plan_of(case: Facts) -> Plan:
    return make_plan(
        case.request,
        case.survey,
        case.host,
        case.guest,
        case.emulations,
        case.disk,
        case.native,
    )


def tmpfs_facts(path: str) -> dict[str, object]:
    """What facts() takes for a tmpfs that is asked for at ``path``."""
    wanted = (TmpfsRequest(GuestPath(path)),)
    return {"request": request(tmpfs=wanted), "guest": guest(tmpfs=(place(path),))}
