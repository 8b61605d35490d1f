"""Unix sockets and file locks by system call: what process 1 needs after it can import nothing.

As ``_linux``: one call per function, OSError with errno, no policy. The socket and fcntl modules
would do the same for a millisecond more of each start. See unix(7), cmsg(3), flock(2).
"""

from __future__ import annotations

import _ctypes
import os
from _struct import calcsize, pack, unpack, unpack_from

from xbuild.sandbox import _linux

# sys/socket.h
AF_UNIX = 1
SOCK_SEQPACKET = 5
SOL_SOCKET = 1
SO_PEERCRED = 17
SCM_RIGHTS = 1
MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000
MSG_CMSG_CLOEXEC = 0x40000000

# asm-generic/ioctls.h, asm-generic/sockios.h
FIOASYNC = 0x5452
FIOSETOWN = 0x8901

# sys/file.h
LOCK_SH = 1
LOCK_EX = 2
LOCK_NB = 4

_BACKLOG = 64
_MESSAGE_BYTES = 4096
_DESCRIPTORS = 8
_CONTROL = "@Nii"  # struct cmsghdr
_CONTROL_BYTES = calcsize(_CONTROL)
_HEADER = "@PIPNPNi0P"  # struct msghdr

_bind = _linux.libc_function("bind", 3)
_listen = _linux.libc_function("listen", 2)
_flock = _linux.libc_function("flock", 2)


class _Memory:
    """Bytes at a place that the kernel may read and write."""

    def __init__(self, content: bytes, *pointed_to: _Memory) -> None:
        self._pointed_to = pointed_to  # lives as long as what points to it
        self._cells = _linux.cells(len(content) or 1)
        memoryview(self._cells).cast("B")[: len(content)] = content
        self.size = len(content)
        self.address = _ctypes.addressof(self._cells)

    def content(self) -> bytes:
        """Return what is there now."""
        return bytes(memoryview(self._cells).cast("B")[: self.size])


def _header(content: _Memory, control: _Memory) -> _Memory:
    """Return a struct msghdr of one piece."""
    piece = _Memory(pack("@PN", content.address, content.size))
    where = control.address if control.size else 0
    packed = pack(_HEADER, 0, 0, piece.address, 1, where, control.size, 0)
    return _Memory(packed, piece, content, control)


def flock(fd: int, operation: int) -> None:
    """Lock or unlock an open file description (flock(2))."""
    _linux.checked(_flock(fd, operation))


def ioctl_number(fd: int, request: int) -> int:
    """Send a request that is answered by a number (ioctl(2))."""
    answer = _Memory(bytes(4))
    _linux.checked(_linux.libc_function("ioctl", 3)(fd, request, answer.address))
    (number,) = unpack("i", answer.content())
    return int(number)


def message_socket() -> int:
    """Return a non-blocking socket for messages, at no file yet (unix(7))."""
    return _linux.socket(AF_UNIX, SOCK_SEQPACKET | os.O_NONBLOCK)


def pair() -> tuple[int, int]:
    """Return two sockets for messages that are connected (socketpair(2))."""
    ends = _Memory(bytes(8))
    kind = SOCK_SEQPACKET | os.O_CLOEXEC
    _linux.checked(_linux.libc_function("socketpair", 4)(AF_UNIX, kind, 0, ends.address))
    one, other = unpack("2i", ends.content())
    return one, other


def listen_at(fd: int, path: str) -> None:
    """Have a socket listen at a new file, to which only its owner can connect. Raises OSError."""
    os.fchmod(fd, 0o600)  # what is made by bind(2) has the socket's own mode, whatever the umask is
    address = pack("H", AF_UNIX) + os.fsencode(path) + b"\0"
    _linux.checked(_bind(fd, address, len(address)), path)
    _linux.checked(_listen(fd, _BACKLOG), path)


def accept(fd: int) -> int:
    """Return the next connection, non-blocking. Raises BlockingIOError where there is none."""
    return _linux.checked(
        _linux.libc_function("accept4", 4)(fd, None, None, os.O_CLOEXEC | os.O_NONBLOCK)
    )


def peer_pid(fd: int) -> int:
    """Return who connected, as this PID namespace numbers it: 0 for a process outside of it."""
    credentials, size = _Memory(bytes(12)), _Memory(pack("I", 12))
    _linux.checked(
        _linux.libc_function("getsockopt", 5)(
            fd, SOL_SOCKET, SO_PEERCRED, credentials.address, size.address
        )
    )
    (pid,) = unpack_from("i", credentials.content())
    return int(pid)


def signal_when_ready(fd: int) -> None:
    """Have SIGIO sent to this process whenever something happens on a socket (socket(7))."""
    _linux.ioctl(fd, FIOSETOWN, pack("i", os.getpid()))
    _linux.ioctl(fd, FIOASYNC, pack("i", 1))


def send(fd: int, content: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors, unless it would have to wait."""
    rights = pack(f"{len(descriptors)}i", *descriptors)
    control = pack(_CONTROL, _CONTROL_BYTES + len(rights), SOL_SOCKET, SCM_RIGHTS) + rights
    with_rights = _Memory(control if descriptors else b"")
    message = _header(_Memory(content), with_rights)
    _linux.checked(
        _linux.libc_function("sendmsg", 3)(fd, message.address, MSG_DONTWAIT | MSG_NOSIGNAL)
    )


def receive(fd: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the next message and its descriptors; an empty one once the other side is gone.

    Raises BlockingIOError where there is none yet.
    """
    return _receive(fd, MSG_DONTWAIT)


def receive_patiently(fd: int) -> tuple[bytes, tuple[int, ...]]:
    """Do the same, but wait for it, whatever signals come."""
    while True:
        try:
            return _receive(fd, 0)
        except InterruptedError:
            continue


def _receive(fd: int, how: int) -> tuple[bytes, tuple[int, ...]]:
    content = _Memory(bytes(_MESSAGE_BYTES))
    control = _Memory(bytes(_CONTROL_BYTES + _DESCRIPTORS * 4))
    message = _header(content, control)
    flags = how | MSG_CMSG_CLOEXEC
    size = _linux.checked(_linux.libc_function("recvmsg", 3)(fd, message.address, flags))
    filled = unpack(_HEADER, message.content())[5]
    descriptors: tuple[int, ...] = ()
    if filled >= _CONTROL_BYTES:
        (length, _, _) = unpack_from(_CONTROL, control.content())
        count = (length - _CONTROL_BYTES) // 4
        descriptors = unpack_from(f"{count}i", control.content(), _CONTROL_BYTES)
    return content.content()[:size], descriptors
