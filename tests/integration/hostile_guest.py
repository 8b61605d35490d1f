"""What a hostile guest tries: run natively as root inside a container, by the host's own Python.

Arguments are the groups of attacks to make. Prints a JSON object of attack to outcome: the name of
an errno, or "SUCCEEDED". Nothing here does harm where it succeeds, but for taking down an interface
where that is asked for: what is opened for writing is not written, what is set is set to what it
was, and reboot(2) is asked for the one command that only changes what Ctrl-Alt-Delete does.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial

Attack = Callable[[], object]

LIBC = ctypes.CDLL(None, use_errno=True)
IS_X86_64 = os.uname().machine == "x86_64"

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, OPEN_TREE_CLONE = -100, 0x1000, 0x8000, 1
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 1, 32, 4096, 8192, 16384
MNT_DETACH, MOUNT_ATTR_RDONLY = 2, 1
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER = 0x20000, 0x02000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PLACE, FILE_PLACE = "/tmp/place", "/tmp/file"

outcomes: dict[str, str] = {}


def number(x86_64: int, generic: int) -> int:
    """Return a system call's number on this machine."""
    return x86_64 if IS_X86_64 else generic


def call(which: int, *words: int | bytes) -> int:
    """Make a system call. Raises OSError."""
    converted = [ctypes.c_long(w) if isinstance(w, int) else ctypes.c_char_p(w) for w in words]
    return checked(LIBC.syscall(ctypes.c_long(which), *converted))


def checked(result: int) -> int:
    """Raise OSError for -1."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def attempt(name: str, attack: Attack) -> None:
    """Note what comes of an attack."""
    try:
        attack()
        outcomes[name] = "SUCCEEDED"
    except OSError as error:
        outcomes[name] = errno.errorcode.get(error.errno or 0, str(error))


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """Call mount(2)."""
    kind_bytes = None if kind is None else kind.encode()
    arguments = (source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), None)
    checked(LIBC.mount(*arguments))


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Call umount2(2)."""
    checked(LIBC.umount2(target.encode(), flags))


def make_writable(fd: int, path: str) -> None:
    """Clear MOUNT_ATTR_RDONLY by mount_setattr(2)."""
    flags = AT_EMPTY_PATH | AT_RECURSIVE if not path else AT_RECURSIVE
    call(442, fd, path.encode(), flags, struct.pack("QQQQ", 0, MOUNT_ATTR_RDONLY, 0, 0), 32)


def new_mount(kind: str, attributes: int = 0) -> int:
    """Return a detached mount of a new superblock (fsopen, fsconfig, fsmount)."""
    context = call(430, kind.encode(), 1)
    if kind == "cgroup":
        call(431, context, 1, b"name", b"systemd", 0)
    call(431, context, 6, 0, 0, 0)
    return call(432, context, 1, attributes)


def in_a_child(attack: Attack) -> None:
    """Attack in a process of its own; what it raises is raised here."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            attack()
            os.write(writing, b"0")
        except OSError as error:
            os.write(writing, str(error.errno).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.wait()
    answer = os.read(reading, 16)
    os.close(reading)
    if answer != b"0":
        raise OSError(int(answer or b"22"), "refused")


def open_for_writing(path: str) -> None:
    """Open what exists for writing, and write nothing."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


# Read-only mounts: each attack is followed by the one question that counts.


def ways_to_write(target: str, below: str) -> Iterator[tuple[str, Attack]]:
    """Yield attacks on the mount at ``target``, in which ``below`` is a file ('' for itself)."""
    place = PLACE if os.path.isdir(target) else FILE_PLACE

    def then_open(attack: Attack, root: str = target) -> Attack:
        def do() -> None:
            attack()
            open_for_writing(root + below)

        return do

    def bind(source: str, flags: int) -> None:
        mount(source, place, None, MS_BIND | flags)

    def bind_and_remount() -> None:
        bind(target, MS_REC)
        mount("", place, None, MS_REMOUNT | MS_BIND)

    def clone() -> None:
        fd = call(428, AT_FDCWD, target.encode(), OPEN_TREE_CLONE | AT_RECURSIVE)
        make_writable(fd, "")
        open_for_writing(f"/proc/self/fd/{fd}{below}")

    yield "open", then_open(lambda: None)
    yield "remount", then_open(lambda: mount("", target, None, MS_REMOUNT | MS_BIND))
    yield "remount the file system", then_open(lambda: mount("", target, None, MS_REMOUNT))
    yield "mount_setattr", then_open(lambda: make_writable(AT_FDCWD, target))
    yield "umount", then_open(lambda: unmount(target, 0))
    yield "lazy umount", then_open(lambda: unmount(target))
    yield "bind elsewhere", then_open(lambda: bind(target, MS_REC), place)
    yield "bind elsewhere and remount", then_open(bind_and_remount, place)
    yield "move elsewhere", then_open(lambda: mount(target, place, None, MS_MOVE), place)
    yield "clone", clone
    if target != "/":
        beside = PLACE + "/" + os.path.basename(target)
        parent = os.path.dirname(target)
        yield "bind what is above", then_open(lambda: mount(parent, PLACE, None, MS_BIND), beside)


def attack_read_only(targets: dict[str, str]) -> None:
    """Try to write where it must not be possible, here and from nested namespaces."""
    for target, below in targets.items():
        for name, attack in ways_to_write(target, below):
            attempt(f"write {target}: {name}", partial(in_a_child, attack))
            nested = partial(in_a_child, partial(in_nested, 0, attack))
            attempt(f"write {target}: {name}, nested", nested)


def in_nested(more: int, attack: Attack) -> None:
    """Attack from a user and mount namespace of one's own."""
    uid, gid = os.getuid(), os.getgid()
    checked(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS | more))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    attack()


# File systems that show or change the host.


def attack_new_file_systems() -> None:
    """Try to mount what the kernel has of the host's."""
    for kind in ("cgroup2", "cgroup", "proc", "sysfs", "debugfs", "tracefs", "securityfs"):
        attempt(f"mount {kind}", partial(new_mount, kind))
        more = CLONE_NEWCGROUP if kind.startswith("cgroup") else 0
        nested = partial(in_nested, more, partial(new_mount, kind))
        attempt(f"mount {kind}, nested", partial(in_a_child, nested))
    attempt("mount a device", lambda: mount("/dev/vda", PLACE, "ext4", 0))
    attempt("cgroup namespace", lambda: in_a_child(lambda: checked(LIBC.unshare(CLONE_NEWCGROUP))))
    attempt("proc of a new PID namespace", lambda: in_a_child(mount_own_proc))
    attempt("write in sysfs of a new network namespace", lambda: in_a_child(write_own_sysfs))
    attempt("forbidden limit", lambda: open_for_writing("/proc/sys/user/max_cgroup_namespaces"))


def mount_own_proc() -> None:
    """Mount a proc of one's own, whose sys would be writable."""
    checked(LIBC.unshare(CLONE_NEWPID))
    in_a_child(lambda: new_mount("proc"))


def write_own_sysfs() -> None:
    """Open an entry of sysfs for writing, where the kernel allows to mount one, read-only."""

    def attack() -> None:
        fd = new_mount("sysfs", MOUNT_ATTR_RDONLY)
        make_writable(fd, "")
        open_for_writing(f"/proc/self/fd/{fd}{changeable_in_sysfs()}")

    in_nested(CLONE_NEWNET, attack)


def changeable_in_sysfs() -> str:
    """Return the path below /sys of some entry that root may write."""
    for directory, _, names in os.walk("/sys/kernel"):
        for name in names:
            path = f"{directory}/{name}"
            if os.lstat(path).st_mode & stat.S_IWUSR and not os.path.islink(path):
                return path.removeprefix("/sys")
    return "/kernel/uevent_helper"


# Process 1, which was xbuild.


def attack_process_one() -> None:
    """Try to look into process 1, and to take over what it has."""
    names = ("environ", "mem", "maps", "auxv", "root/etc", "cwd/etc", "exe", "map_files", "stack")
    for name in (*names, "ns/mnt", "ns/user", "ns/net", "task/1/environ", "fdinfo/0", "fd/0"):
        attempt(f"read /proc/1/{name}", partial(read, f"/proc/1/{name}"))
    attempt("ptrace attach", lambda: call(number(101, 117), 16, 1, 0, 0))
    attempt("ptrace seize", lambda: call(number(101, 117), 0x4206, 1, 0, 0))
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PP", ctypes.addressof(buffer), 8)
    attempt("read memory", lambda: call(number(310, 270), 1, vector, 1, vector, 1, 0))
    process = call(434, 1, 0)
    attempt("take a descriptor", lambda: call(438, process, 0, 0))
    attempt("join its mount namespace", lambda: call(number(308, 268), process, CLONE_NEWNS))
    attempt("join its user namespace", lambda: call(number(308, 268), process, CLONE_NEWUSER))


def read(path: str) -> None:
    """Read a little of a file or directory."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.listdir(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else os.read(fd, 8)


# The kernel, and the network that is the host's.


def attack_kernel() -> None:
    """Ask the kernel for what only the host's root may have."""
    reboot_cad_off = (0xFEE1DEAD, 672274793, 0, 0)
    attempt("reboot", lambda: call(number(169, 142), *reboot_cad_off))
    attempt("load a module", lambda: call(number(175, 105), 0, 0, b""))
    attempt("load a module by file", lambda: call(number(313, 273), 0, b"", 0))
    attempt("unload a module", lambda: call(number(176, 106), b"nonexistent", 0o4000))
    attempt("kexec", lambda: call(number(246, 104), 0, 0, 0, 0))
    attempt("swap", lambda: call(number(167, 224), b"/nonexistent", 0))
    attempt("accounting", lambda: call(number(163, 89), b"/nonexistent"))
    attempt("set the clock", lambda: call(number(164, 170), 0, 0))
    attempt("read the kernel's log", lambda: call(number(103, 116), 3, bytes(64), 64))
    attempt("bpf", lambda: call(number(321, 280), 5, bytes(128), 128))
    attempt("make a memory device", lambda: os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1)))
    attempt("make a disk", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)))
    attempt("use a disk of the tree", lambda: os.open("/disk", os.O_RDONLY))
    attempt("use a memory device of the tree", lambda: os.open("/null", os.O_RDONLY))
    root_of_the_disk = struct.pack("IiII", 8, 1, 2, 0)  # an ext4 handle of inode 2
    for place in ("/", "/ro", "/tmp"):
        fd = os.open(place, os.O_RDONLY)
        by_handle = partial(call, number(304, 265), fd, root_of_the_disk, 0)
        attempt(f"open by handle in {place}", by_handle)


def attack_network() -> None:
    """Try to change an interface, in ways that would change nothing."""
    anything = socket.socket()
    request = struct.pack("16s16x", b"lo")
    mtu = fcntl.ioctl(anything, 0x8921, request)
    flags = fcntl.ioctl(anything, 0x8913, request)
    attempt("set a size", lambda: fcntl.ioctl(anything, 0x8922, mtu))
    attempt("set flags", lambda: fcntl.ioctl(anything, 0x8914, flags))
    attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))


def take_down() -> None:
    """Try to take down the loopback interface."""
    request = struct.pack("16s16x", b"lo")
    attempt("take down", lambda: fcntl.ioctl(socket.socket(), 0x8914, request))


def attack_mounts() -> None:
    """Try to write on all that must be read-only, and on what need not be."""
    os.makedirs(PLACE, exist_ok=True)
    with open(FILE_PLACE, "w"):
        pass
    attempt("write /rw", lambda: open_for_writing("/rw/file"))
    read_only = {
        "/proc/sys": "/kernel/core_pattern",
        "/sys": changeable_in_sysfs(),
        "/ro": "/file",
        "/rofile": "",
        "/etc/resolv.conf": "",
        "/etc/hosts": "",
        "/": "/etc/passwd",
    }
    attack_read_only(read_only)


GROUPS = {
    "mounts": attack_mounts,
    "file systems": attack_new_file_systems,
    "process 1": attack_process_one,
    "kernel": attack_kernel,
    "network": attack_network,
    "take down": take_down,
}

for group in sys.argv[1:]:
    GROUPS[group]()
json.dump(outcomes, sys.stdout)
