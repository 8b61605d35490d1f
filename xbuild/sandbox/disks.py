"""Image steps of a plan: open and lock, attach, check, mount; and flushing at the end.

Loaded only where a plan is for an image, before the root is switched.
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.record import HostPath, Record
from xbuild.sandbox import _linux
from xbuild.sandbox.filelock import lock_descriptor
from xbuild.sandbox.loop import attach_loop
from xbuild.sandbox.mounts import new_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from xbuild.plan import steps
    from xbuild.sandbox.loop import Loop
    from xbuild.sandbox.serving import Server
    from xbuild.sandbox.stage import Stage
else:
    import _signal as signal  # signal itself imports enum

_READ_ONLY_KEYS = (("ro", None),)


class Flushed(Record):
    """A mounted volume and a descriptor of its root, which sees errors since it was opened."""

    volume: str
    fd: int


class AttachedDisk:
    """An image in use by process 1: ``fd`` is locked, and so are the loop devices made of it."""

    def __init__(self, image: str, fd: int) -> None:
        self.image = image
        self.fd = fd
        self.loops: dict[int, Loop] = {}
        self.volumes: dict[str, int] = {}  # detached mounts, until they are shown
        self.written: list[Flushed] = []
        self.servers: list[Server] = []  # programs that serve volumes through FUSE

    def descriptors(self) -> set[int]:
        """Return what process 1 keeps open for the rest of its life."""
        return {self.fd, *(each.fd for each in self.written)}

    def finish(self) -> tuple[str, OSError] | None:
        """End every other process, and write everything back; what failed first, with its volume.

        To be called by process 1 when the command has ended. Without it the kernel writes back
        as well, when it takes the mounts down, but tells nobody of errors.
        """
        failed = None
        _end_all_others()
        for each in self.written:
            try:
                _linux.syncfs(each.fd)
            except OSError as error:
                failed = failed or (each.volume, error)
            os.close(each.fd)
        return failed


def _end_all_others() -> None:
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return


def open_image(stage: Stage, step: steps.OpenImage) -> None:
    """Open and lock the image. Raises BlockingIOError when another has it, OSError ESTALE."""
    flags = os.O_RDWR if step.is_exclusive else os.O_RDONLY
    if step.is_exclusive and stat.S_ISBLK(os.stat(step.image).st_mode):
        flags |= os.O_EXCL  # refused where it is mounted, in whichever namespace
    is_named = step.descriptor is None
    path = step.image if is_named else f"/proc/self/fd/{step.descriptor}"
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        lock_descriptor(fd, exclusive=step.is_exclusive)
    except OSError as error:
        raise OSError(error.errno, error.strerror, step.image) from error
    status = os.fstat(fd)
    if (status.st_size, status.st_mtime_ns) != (step.size, step.mtime_ns):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), step.image)
    stage.disk = AttachedDisk(step.image, fd)


def attach(stage: Stage, step: steps.AttachLoop) -> None:
    """Attach one partition; process 1 lets go of the device when the command starts."""
    disk = _disk_of(stage)
    disk.loops[step.partition] = attach_loop(
        disk.fd, step.offset, step.size, read_only=step.read_only, name=disk.image
    )


def check(stage: Stage, step: steps.CheckFilesystem) -> None:
    """Run a program that repairs the file system: see run_check()."""
    disk = _disk_of(stage)
    if step.offset is None:
        loop = disk.loops[step.partition]
        run_check(step, loop.fd, loop.path)
    else:
        run_check(step, disk.fd, disk.image)


def run_check(step: steps.CheckFilesystem, fd: int, name: str) -> None:
    """Check and repair what is in an open file; what the program says goes to standard error.

    Raises OSError EUCLEAN where it could not repair it all.
    """
    from xbuild.sandbox.cell import Cell, Program, Refused  # for a check alone

    if step.replay:
        _replay(step.replay, name)
    program, *arguments = step.argv
    place = f"/proc/self/fd/{fd}" + ("" if step.offset is None else f"?offset={step.offset}")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    argv = (program, *arguments, place)
    try:
        with open(os.devnull, "rb") as null, Cell((fd,), may_write=True, has_bounds=False) as cell:
            streams = ((0, null.fileno()), (1, 2), (2, 2), (fd, fd))
            cell.start(Program(HostPath(os.path.realpath(program)), argv, environment, streams))
            status = cell.wait()
    except Refused as error:
        os.write(2, f"{program}: {error.message}\n".encode())
        raise OSError(errno.EPERM, error.message, program) from error
    os.fsync(fd)  # which the program only believed to do
    code = os.waitstatus_to_exitcode(status or 0)
    if code not in step.accepted:
        raise OSError(errno.EUCLEAN, f"{program} ended with {code}", program)


def _replay(filesystem: str, device: str) -> None:
    """Mount a file system nowhere, and let go of it; one that is too damaged is left as it is."""
    try:
        os.close(new_mount(filesystem, (), 0, source=device))
    except OSError:
        return  # the program says what it makes of the journal


def mount_filesystem(stage: Stage, step: steps.MountFilesystem) -> None:
    """Mount an attached partition, not yet anywhere."""
    disk = _disk_of(stage)
    loop = disk.loops[step.partition]
    options = (*step.options, *(_READ_ONLY_KEYS if step.read_only else ()))
    attributes = _linux.MOUNT_ATTR_RDONLY if step.read_only else 0
    mount = new_mount(step.filesystem, options, attributes, source=loop.path)
    disk.volumes[step.volume] = mount
    if not step.read_only:
        # Not O_PATH: syncfs(2) reports errors since this was opened.
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        disk.written.append(Flushed(step.volume, root))


def take_volume(stage: Stage, volume: str) -> int:
    """Return the detached mount of a volume, which now is the caller's."""
    return _disk_of(stage).volumes.pop(volume)


def _disk_of(stage: Stage) -> AttachedDisk:
    assert stage.disk is not None
    return stage.disk
