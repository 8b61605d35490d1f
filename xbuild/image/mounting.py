"""An image mounted read-only where nobody else sees it, to be looked at: a plan needs its tree.

A child process has the mounts in a mount namespace of its own; they, and the loop devices, go
with it, however it ends. Nothing is written, not even a journal replayed.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
from typing import NoReturn

from xbuild.errors import ImageError
from xbuild.image.closing import Closing
from xbuild.plan import steps
from xbuild.plan.disk import Volume
from xbuild.record import GuestPath, HostPath, replace
from xbuild.sandbox import _linux
from xbuild.sandbox.apply import apply
from xbuild.sandbox.assembly import die_with_parent, in_child
from xbuild.sandbox.disks import AttachedDisk, take_volume
from xbuild.sandbox.stage import Stage

_REPLY_LIMIT = 1 << 16
# Mount options without which a file system would replay its journal, or fail where it cannot.
NO_REPLAY: dict[str, tuple[tuple[str, str | None], ...]] = {
    "ext3": (("noload", None),),
    "ext4": (("noload", None),),
    "xfs": (("norecovery", None),),
    "btrfs": (("rescue", "nologreplay"),),
}


class MountedImage(Closing):
    """Volumes of a locked image, mounted read-only in a child's mount namespace until close().

    ``path`` is the root's, through the child's /proc directory; ``refused`` has the mounts below
    it that failed, by their place in ``below``.
    """

    def __init__(
        self,
        image: HostPath,
        fd: int,
        root: Volume,
        below: tuple[tuple[Volume, GuestPath], ...] = (),
    ) -> None:
        """Mount ``root`` and what is ``below`` it, parents first, from the open image ``fd``.

        Mount points are resolved inside the root; one that is not there is passed over. Raises
        MountRefused when the root cannot be mounted.
        """
        answer, self._answer = os.pipe()
        hold, self._hold = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(answer)
            os.close(self._hold)
            in_child(lambda: _hold_mounted(image, fd, root, below, self._answer, hold))
        os.close(self._answer)
        os.close(hold)
        try:
            self._receive(answer, root)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(answer)

    def close(self) -> None:
        """End the child, and with it mounts and loop devices; a second call does nothing."""
        if self._pid > 0:
            os.close(self._hold)
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _receive(self, answer: int, root: Volume) -> None:
        content = os.read(answer, _REPLY_LIMIT)
        if not content:
            raise ImageError(
                "Cannot mount the image to look at it: the child ended",
                "dmesg says whether the kernel killed it; xbuild doctor tries loop devices",
            )
        view, number, is_attached, refused = marshal.loads(content)
        if number:
            raise MountRefused(number, root, is_attached=is_attached)
        self.path = HostPath(f"/proc/{self._pid}/fd/{view}")
        self.refused: dict[int, int] = dict(refused)


class MountRefused(Exception):
    """The root volume could not be attached or mounted.

    Becomes an XbuildError where it is known what was wanted.
    """

    def __init__(self, number: int, volume: Volume, *, is_attached: bool) -> None:
        super().__init__(os.strerror(number))
        self.number = number
        self.volume = volume
        self.is_attached = is_attached


def read_only(volume: Volume) -> Volume:
    """Return a volume as it is mounted from a read-only device."""
    options = (*volume.options, *NO_REPLAY.get(volume.filesystem, ()))
    return replace(volume, read_only=True, options=options, check=())


def _hold_mounted(
    image: HostPath,
    fd: int,
    root: Volume,
    below: tuple[tuple[Volume, GuestPath], ...],
    answer: int,
    hold: int,
) -> NoReturn:
    """Mount, say what came of it, and stay until killed."""
    die_with_parent()
    stage = Stage({})
    stage.disk = AttachedDisk(image, fd)
    try:
        _linux.unshare(_linux.CLONE_NEWNS)
        stage.has_own_mounts = True
        apply(stage, steps.PrivateMounts())
        _mount(stage, read_only(root))
        apply(stage, steps.MountTree(image, True, volume=root.name))
    except OSError as error:
        number, is_attached = error.errno or errno.EIO, root.partition in stage.disk.loops
        os.write(answer, marshal.dumps((-1, number, is_attached, ())))
        os._exit(1)
    refused = []
    for index, (volume, target) in enumerate(below):
        try:
            _mount(stage, read_only(volume))
            _show(stage, volume, target)
        except OSError as error:
            refused.append((index, error.errno or errno.EIO))
    os.write(answer, marshal.dumps((stage.view, 0, True, tuple(refused))))
    os.close(answer)
    os.read(hold, 1)
    os._exit(0)


def _mount(stage: Stage, volume: Volume) -> None:
    assert stage.disk is not None
    number = volume.partition
    if number not in stage.disk.loops:
        apply(stage, steps.AttachLoop(number, volume.offset, volume.size, read_only=True))
    apply(
        stage,
        steps.MountFilesystem(
            volume.name, number, volume.filesystem, volume.options, volume.read_only
        ),
    )


def _show(stage: Stage, volume: Volume, target: GuestPath) -> None:
    mount = take_volume(stage, volume.name)
    try:
        place = _linux.openat2(
            stage.view,
            target.lstrip("/"),
            flags=os.O_PATH | os.O_DIRECTORY,
            resolve=_linux.RESOLVE_IN_ROOT | _linux.RESOLVE_NO_MAGICLINKS,
        )
    except OSError:
        os.close(mount)
        return  # the plan will make the mount point
    _linux.move_mount(mount, place, label=target)
    os.close(place)
    os.close(mount)
