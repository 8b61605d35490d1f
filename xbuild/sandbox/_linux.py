"""System calls that Python's os module lacks: one call per function, no policy.

Every function raises OSError with errno and, where there is one, the path. Descriptors returned
are close-on-exec. ``_ctypes`` is used without ``ctypes``, whose import costs a tenth of a
container's start (bench/); every argument is passed as a pointer-sized word.
"""

from __future__ import annotations

import _ctypes
import os
from _struct import pack

# linux/sched.h, signal.h
CLONE_VM = 0x00000100
SIGCHLD = 17
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/mount.h
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_IDMAP = 0x00100000

# linux/fcntl.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# sys/socket.h
AF_INET = 2
SOCK_DGRAM = 2

# linux/sockios.h, linux/if.h
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# errno.h
EPERM = 1
ENOENT = 2
EINVAL = 22
ENFILE = 23
EMFILE = 24
EROFS = 30
ENOSYS = 38
ELOOP = 40
E2BIG = 7
ENOEXEC = 8

# sys/mount.h
MNT_DETACH = 2

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4  # no slower branches for the process: Linux 5.16's default

# linux/personality.h
PER_LINUX32 = 0x0008

# linux/keyctl.h
KEYCTL_JOIN_SESSION_KEYRING = 1

# asm/unistd.h of x86_64 differs from asm-generic/unistd.h, which aarch64 has
_NR_KEYCTL = 250 if os.uname().machine == "x86_64" else 219
_NR_SECCOMP = 317 if os.uname().machine == "x86_64" else 277
# asm-generic/unistd.h: numbers from 424 on are the same on every architecture
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_PIDFD_OPEN = 434
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442


TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    _SimpleCData = _ctypes._SimpleCData[int]
else:
    import _signal as signal  # signal itself imports enum

    _SimpleCData = _ctypes._SimpleCData


class _Word(_SimpleCData):
    _type_ = "P"


class _Long(_SimpleCData):
    _type_ = "l"


class _Int(_SimpleCData):
    _type_ = "i"


class _Char(_SimpleCData):
    _type_ = "c"


class _IntFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _LongFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_libc = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is the program itself, as in dlopen(3)


def _bind(name: str, words: int) -> _ctypes.CFuncPtr:
    function = _IntFunction(_ctypes.dlsym(_libc, name))
    function.argtypes = (_Word,) * words
    return function


def libc_function(name: str, words: int) -> Callable[..., int]:
    """Return a function of the C library that takes pointer-sized words."""
    return _bind(name, words)


def checked(result: int, path: str | None = None) -> int:
    """Return what a call returned; raises OSError with errno where it failed."""
    return _check(result, path)


def cells(count: int) -> _ctypes.Array[_Char]:
    """Return ``count`` bytes of memory at a fixed place."""
    return (_Char * count)()


_syscall = _LongFunction(_ctypes.dlsym(_libc, "syscall"))
_syscall.argtypes = (_Word,) * 7
_unshare = _bind("unshare", 1)
_setns = _bind("setns", 2)
_mount = _bind("mount", 5)
_umount2 = _bind("umount2", 2)
_pivot_root = _bind("pivot_root", 2)
_prctl = _bind("prctl", 5)
_personality = _bind("personality", 1)
_sethostname = _bind("sethostname", 2)
_socket = _bind("socket", 3)
_ioctl = _bind("ioctl", 3)
_clone = _bind("clone", 4)
_getpid = _ctypes.dlsym(_libc, "getpid")
_STACK_BYTES = 8192
_stack = (_Char * _STACK_BYTES)()

_CALL_FAILED = -1


def _check(result: int, path: str | None = None) -> int:
    if result == _CALL_FAILED:
        errno = _ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return result


def _raw(
    number: int,
    first: int | bytes | None = 0,
    second: int | bytes | None = 0,
    third: int | bytes | None = 0,
    fourth: int | bytes | None = 0,
    fifth: int | bytes | None = 0,
    *,
    path: str | None = None,
) -> int:
    result: int = _syscall(number, first, second, third, fourth, fifth, 0)
    return result if result != _CALL_FAILED else _check(result, path)


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones (unshare(2))."""
    _check(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """Join the namespace that ``fd`` refers to (setns(2))."""
    _check(_setns(fd, flags))


def clone_ended(flags: int) -> int:
    """Return a child in new namespaces that has nothing to do and ends at once (clone(2)).

    It keeps a user namespace alive until it is waited for, and leaves nothing should this process
    be killed before. It shares this process's memory, so that no page is copied. One at a time:
    all use the same stack.
    """
    top = (_ctypes.addressof(_stack) + _STACK_BYTES) & ~0xF
    # The child inherits a mask under which no handler of ours can run in it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return _check(_clone(_getpid, top, flags | CLONE_VM | SIGCHLD, None))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_propagation(path: str, flags: int) -> None:
    """Change how mount events of ``path`` spread, e.g. MS_REC | MS_PRIVATE (mount(2))."""
    _check(_mount(None, os.fsencode(path), None, flags, None), path)


def umount2(path: str, flags: int) -> None:
    """Unmount ``path`` (umount2(2))."""
    _check(_umount2(os.fsencode(path), flags), path)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount of this namespace (pivot_root(2))."""
    _check(_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def prctl(option: int, argument: int) -> None:
    """Set one attribute of the calling process (prctl(2))."""
    _check(_prctl(option, argument, 0, 0, 0))


def prctl_name(name: bytes) -> None:
    """Set the name that ps(1) shows for the calling thread, at most 15 bytes (prctl(2))."""
    _check(_prctl(PR_SET_NAME, name, 0, 0, 0))


def personality(persona: int) -> None:
    """Set the execution domain, e.g. PER_LINUX32 (personality(2))."""
    _check(_personality(persona))


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace (sethostname(2))."""
    encoded = os.fsencode(name)
    _check(_sethostname(encoded, len(encoded)), name)


def socket(family: int, kind: int) -> int:
    """Return a socket (socket(2)); the socket module is too slow to import for one ioctl."""
    return _check(_socket(family, kind | os.O_CLOEXEC, 0))


def ioctl(fd: int, request: int, argument: bytes) -> None:
    """Send a request whose answer is not read (ioctl(2))."""
    _check(_ioctl(fd, request, argument))


def syncfs(fd: int) -> None:
    """Write back the file system of ``fd``; raises what failed since it was opened (syncfs(2))."""
    _check(_bind("syncfs", 1)(fd))


def open_tree(place: int, flags: int, *, label: str) -> int:
    """Return a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy (open_tree(2))."""
    flags |= OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
    return _raw(_NR_OPEN_TREE, place, b"", flags, path=label)


def move_mount(mount_fd: int, target_fd: int, *, label: str) -> None:
    """Attach the mount of ``mount_fd`` on the place of ``target_fd`` (move_mount(2))."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _raw(_NR_MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags, path=label)


def fsopen(filesystem: str) -> int:
    """Return a configuration context of a file system type (fsopen(2))."""
    return _raw(_NR_FSOPEN, filesystem.encode(), FSOPEN_CLOEXEC, path=filesystem)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set a parameter without a value (fsconfig(2))."""
    _raw(_NR_FSCONFIG, fd, FSCONFIG_SET_FLAG, key.encode(), None, 0, path=key)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set a parameter to a string (fsconfig(2))."""
    label = f"{key}={value}"
    _raw(_NR_FSCONFIG, fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0, path=label)


def fsconfig_create(fd: int, *, label: str) -> None:
    """Create the superblock that ``fd`` describes (fsconfig(2))."""
    _raw(_NR_FSCONFIG, fd, FSCONFIG_CMD_CREATE, None, None, 0, path=label)


def fsmount(fd: int, attributes: int, *, label: str) -> int:
    """Return a detached mount of the superblock of ``fd`` with MOUNT_ATTR_* (fsmount(2))."""
    return _raw(_NR_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes, path=label)


def mount_setattr(fd: int, *, set_: int, userns_fd: int = 0, recursive: bool, label: str) -> None:
    """Add MOUNT_ATTR_* to the mount of ``fd``, IDMAP by ``userns_fd`` (mount_setattr(2))."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    attributes = pack("QQQQ", set_, 0, 0, userns_fd)
    _raw(_NR_MOUNT_SETATTR, fd, b"", flags, attributes, len(attributes), path=label)


def openat2(dirfd: int, path: str, *, flags: int, mode: int = 0, resolve: int) -> int:
    """Open ``path`` under RESOLVE_* restrictions (openat2(2))."""
    how = pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _raw(_NR_OPENAT2, dirfd, os.fsencode(path), how, len(how), path=path)


def close_range(first: int, last: int) -> None:
    """Close every descriptor from ``first`` to ``last`` (close_range(2))."""
    _raw(_NR_CLOSE_RANGE, first, last, 0)


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for an empty one (keyctl(2))."""
    _raw(_NR_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)


def pidfd_open(pid: int) -> int:
    """Return a descriptor of a process (pidfd_open(2))."""
    return _raw(_NR_PIDFD_OPEN, pid, 0)


def seccomp_filter(instructions: bytes) -> None:
    """Install a filter of struct sock_filter in this process (seccomp(2))."""
    program = (_Char * len(instructions)).from_buffer_copy(instructions)
    count = len(instructions) // 8
    fprog = pack("HxxxxxxP", count, _ctypes.addressof(program))  # struct sock_fprog
    flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW
    _raw(_NR_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, fprog, path="seccomp")
