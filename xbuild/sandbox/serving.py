"""File systems of an image served by programs through FUSE, for whom loop devices are refused.

The program lives outside of the container's PID namespace, in a mount namespace of its own which
it only has for mounting. A helper takes the mount out of there, for process 1 to inherit as a
descriptor, and leaves the program with an empty root directory. So nothing that the program waits
for is ever its own, and it ends by itself when the container's mount namespace is gone: the kernel
then ends the connection (fuse(4)), and the program writes what it has left and exits. Where the
supervisor dies instead, the program is told by SIGTERM. Loaded only where a plan has it.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import socket

from xbuild.record import Record
from xbuild.sandbox import _linux, init, signals
from xbuild.sandbox.assembly import die_with_parent, in_child
from xbuild.sandbox.channel import Gate, Report
from xbuild.sandbox.disks import Flushed
from xbuild.sandbox.mountinfo import read_mountinfo
from xbuild.sandbox.mounts import new_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from xbuild.plan import steps
    from xbuild.sandbox.channel import Reports
    from xbuild.sandbox.disks import AttachedDisk
    from xbuild.sandbox.stage import Stage

_POINT = "/tmp"  # which every host has; covered in the program's own mount namespace alone
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ANSWER_LIMIT = 4096  # bytes
_SAID_LIMIT = 512  # bytes of a program's messages that are read
_ALWAYS_SAID = "Writing to the journal is not supported."  # fuse2fs, whenever it may write
_LAST_DESCRIPTOR = 2**32 - 1
_ENDING_PATIENCE_MS = 1000
_WRITING_PATIENCE_MS = 60_000
_EXT_STATE = 1024 + 0x3A  # s_state (Documentation/filesystems/ext4/super.rst)
_EXT_VALID = 1


class Server(Record):
    """A program that serves a volume; ``said`` is a pipe with its messages."""

    volume: str
    pid: int
    said: int
    offset: int
    read_only: bool


def serve(stage: Stage, step: steps.ServeFilesystem) -> None:
    """Start the program and take its mount. Raises OSError EIO with what the program said."""
    assert stage.disk is not None
    said, saying = os.pipe()
    os.set_blocking(saying, False)  # nobody reads before it has ended
    begun, parent = Gate(), os.getpid()
    pid = os.fork()
    if pid == 0:
        fd = stage.disk.fd
        in_child(lambda: _become_server(step, fd, saying, begun, parent))
    os.close(saying)
    server = Server(step.volume, pid, said, step.offset, step.read_only)
    try:
        mount = _fetch_mount(pid, begun)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise OSError(error.errno, error.strerror, _last_words(server) or error.filename) from error
    finally:
        begun.close()
    stage.disk.volumes[step.volume] = mount
    stage.disk.servers.append(server)


def _become_server(
    step: steps.ServeFilesystem, image: int, saying: int, begun: Gate, parent: int
) -> NoReturn:
    _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    try:
        _linux.unshare(_linux.CLONE_NEWNS | _linux.CLONE_NEWNET | _linux.CLONE_NEWIPC)
        _linux.set_propagation("/", _linux.MS_REC | _linux.MS_PRIVATE)
        _cover(_POINT)
        _linux.prctl(_linux.PR_SET_NO_NEW_PRIVS, 1)
        null = os.open("/dev/null", os.O_RDWR)
        os.chdir("/")  # from where it is moved with its root, see _empty_root
        begun.open()
        for source, number in ((null, 0), (saying, 1), (saying, 2), (image, 3)):
            os.dup2(source, number)
        os.set_inheritable(3, True)  # dup2(2) does nothing where it is this one already
        _linux.close_range(4, _LAST_DESCRIPTOR)
        signals.restore_defaults()
        # Its messages go to a pipe that may be closed by then: no reason to leave work undone.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGPIPE,))
        program, *arguments = step.argv
        argv = [program, *arguments, "/proc/self/fd/3", _POINT]
        os.execve(program, argv, {"PATH": _PATH, "LC_ALL": "C"})
    except OSError as error:
        os.write(2, f"{error.strerror}: {error.filename}\n".encode())
    os._exit(1)


def _cover(place: str) -> None:
    """Mount an empty tmpfs, as FUSE programs want it: libfuse 2 refuses a directory with files."""
    mount = new_mount("tmpfs", (), _linux.MOUNT_ATTR_NODEV | _linux.MOUNT_ATTR_NOSUID)
    target = os.open(place, os.O_PATH | os.O_DIRECTORY)
    _linux.move_mount(mount, target, label=place)
    os.close(mount)
    os.close(target)


def _fetch_mount(pid: int, begun: Gate) -> int:
    """Return the mount that a program makes in its mount namespace.

    Raises OSError, EIO where the program ends instead.
    """
    ours, theirs = socket.socketpair()
    if begun.wait():
        helper = os.fork()
        if helper == 0:
            in_child(lambda: _send_mount(pid, theirs))
        init.wait_for(helper)
    theirs.close()
    answer, descriptors, _, _ = socket.recv_fds(ours, _ANSWER_LIMIT, 1)
    ours.close()
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]
    failure = marshal.loads(answer) if answer else (errno.EIO, os.strerror(errno.EIO), "")
    raise OSError(*failure)


def _send_mount(pid: int, link: socket.socket) -> NoReturn:
    die_with_parent()
    try:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        _linux.setns(namespace, _linux.CLONE_NEWNS)
        if _wait_for_mount(pid):
            place = os.open(_POINT, os.O_PATH)
            mount = _linux.open_tree(place, _linux.OPEN_TREE_CLONE, label=_POINT)
            os.close(place)
            # It must not outlive the container in the namespace of the program that serves it.
            _linux.umount2(_POINT, _linux.MNT_DETACH)
            _empty_root()
            socket.send_fds(link, [b"\0"], [mount])
    except (FileNotFoundError, ProcessLookupError):
        pass  # the program has ended
    except OSError as error:
        link.send(marshal.dumps((error.errno or 0, error.strerror, str(error.filename or ""))))
    os._exit(0)


def _wait_for_mount(pid: int) -> bool:
    """Wait until the program has mounted; False when it has ended."""
    with open("/proc/self/mountinfo", "rb") as changes:
        waiting = select.poll()
        waiting.register(changes, select.POLLPRI | select.POLLERR)
        waiting.register(_linux.pidfd_open(pid), select.POLLIN)
        while not _is_mounted():
            if any(fd != changes.fileno() for fd, _ in waiting.poll()):
                return _is_mounted()
            changes.seek(0)
            changes.read()
    return True


def _is_mounted() -> bool:
    return any(
        row.point == _POINT and row.filesystem.partition(".")[0] in ("fuse", "fuseblk")
        for row in read_mountinfo()
    )


def _empty_root() -> None:
    """Make an empty tmpfs the root of this mount namespace and of all processes in it."""
    mount = new_mount("tmpfs", (), _linux.MOUNT_ATTR_RDONLY)
    target = os.open("/", os.O_PATH | os.O_DIRECTORY)
    _linux.move_mount(mount, target, label="/")
    os.fchdir(mount)
    _linux.pivot_root(".", ".")
    _linux.umount2(".", _linux.MNT_DETACH)


def inherit(disk: AttachedDisk) -> None:
    """Arrange in process 1 what it needs of the volumes, and let go of the image and its lock."""
    os.close(disk.fd)
    disk.fd = -1
    for server in disk.servers:
        if not server.read_only:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            root = os.open(".", flags, dir_fd=disk.volumes[server.volume])
            disk.written.append(Flushed(server.volume, root))


def let_go(disk: AttachedDisk) -> None:
    """Close in the supervisor what it holds of the mounts, which now are process 1's alone."""
    for fd in disk.volumes.values():
        os.close(fd)
    disk.volumes.clear()


def attend(first: int, disk: AttachedDisk, ending: Reports, index: int) -> int:
    """Wait for process 1 and then for the programs, and return process 1's exit status.

    One that ends before process 1, or does not end well, is reported; the run ends with it.
    """
    servers = {server.pid: server for server in disk.servers}
    status = None
    while status is None:
        pid, wait_status = os.wait()
        if pid == first:
            status = init.exit_status_of(wait_status)
        elif pid in servers:
            server = servers.pop(pid)
            if wait_status or not _ends_within(first, _ENDING_PATIENCE_MS):
                _report(server, wait_status, ending, index)
                signals.send(first, signal.SIGKILL)
    for server in servers.values():
        if not _ends_within(server.pid, _WRITING_PATIENCE_MS):
            os.kill(server.pid, signal.SIGTERM)
        wait_status = os.waitpid(server.pid, 0)[1]
        if wait_status:
            _report(server, wait_status, ending, index)
    _write_back(disk, ending, index)
    return status


def _ends_within(pid: int, limit_ms: int) -> bool:
    """Wait until a child has ended, without reaping it."""
    pidfd = _linux.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    ended = bool(waiting.poll(limit_ms))
    os.close(pidfd)
    return ended


def _report(server: Server, wait_status: int, ending: Reports, index: int) -> None:
    code = os.waitstatus_to_exitcode(wait_status)
    words = f"{server.volume}\n{_last_words(server)}"
    ending.send(Report("serve", index, max(-code, 0), words))


def _last_words(server: Server) -> str:
    os.set_blocking(server.said, False)
    try:
        text = os.read(server.said, _SAID_LIMIT).decode("utf-8", "replace")
    except BlockingIOError:
        text = ""
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not line.endswith(_ALWAYS_SAID))


def _write_back(disk: AttachedDisk, ending: Reports, index: int) -> None:
    written = [server for server in disk.servers if not server.read_only]
    if not written:
        return
    try:
        os.fsync(disk.fd)
    except OSError as error:
        ending.send(Report("flush", index, error.errno or 0, written[0].volume))
        return
    for server in written:
        state = os.pread(disk.fd, 2, server.offset + _EXT_STATE)
        if int.from_bytes(state, "little") != _EXT_VALID:
            ending.send(Report("flush", index, errno.EUCLEAN, server.volume))
