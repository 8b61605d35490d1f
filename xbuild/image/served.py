"""Plan a run in a disk image for whom the kernel refuses loop devices: by programs through FUSE.

The tree is looked at as ``xbuild inspect`` does, by programs that mount nothing.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from xbuild.emulation.packages import package_command
from xbuild.errors import HostUnable, ImageToolMissing, UnsupportedImage
from xbuild.image.program import find_program
from xbuild.image.survey import open_survey, require_root
from xbuild.image.volumes import checked, place_of, state_notes, volume_of, wanted_below
from xbuild.plan.disk import Disk, Seat, Volume
from xbuild.plan.make import plan_tree
from xbuild.plan.restrictions import FUSE_DEVICE, why_no_fuse
from xbuild.record import replace

if TYPE_CHECKING:
    from xbuild.image.filesystem import Filesystem
    from xbuild.image.lock import ImageLock
    from xbuild.image.source import Source
    from xbuild.image.survey import ImageSurvey
    from xbuild.plan.host import Host
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan
    from xbuild.tree.resolve import TreeReader

# In the order of preference: squashfuse_ll answers by inode, squashfuse by path.
SERVERS = {"ext4": ("fuse2fs",), "squashfs": ("squashfuse_ll", "squashfuse")}
# In the foreground and in one thread: those of fuse2fs wait for one lock anyway, and libfuse ends
# threads by pthread_cancel(3), which needs a library that is out of reach by then.
_FLAGS = ("-f", "-s", "-o")
# The kernel checks permissions, for whoever the container's users are (mount.fuse3(8)).
_OPTIONS = "allow_other,default_permissions,suid"


def plan_served_run(
    request: Request, host: Host, lock: ImageLock, source: Source, *, remember: bool
) -> Plan:
    """Look into a locked image and decide how programs serve it: see plan_image_run().

    Raises HostUnable where there is no FUSE, ImageToolMissing, UnsupportedImage for a root that
    no such program serves.
    """
    require_fuse(f"use {request.target} without root")
    with open_survey(source.opened, label=source.path, partition=request.partition) as opened:
        survey = opened.survey
        part = require_root(survey)
        assert survey.tree is not None
        assert opened.reader is not None
        root = _served(volume_of(part, subvolume=request.subvolume), part.filesystem, request)
        reader = opened.reader
        reader.label = request.target
        disk = _describe(request, survey, lock, root, reader)
        disk = replace(disk, notes=(*source.notes, *disk.notes), descriptor=source.descriptor)
        # Ids on disk are those of the container here: no owner is anybody of the host's.
        tree = replace(survey.tree, target=request.target, owner=-1, owner_gid=-1)
        return plan_tree(request, host, reader, remember=remember, disk=disk, survey=tree)


def require_fuse(purpose: str) -> None:
    """Raise HostUnable unless this user may open the FUSE device; ``purpose``: "Cannot …"."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        found = why_no_fuse(error.errno or 0)
        raise HostUnable(
            f"Cannot {purpose}: {FUSE_DEVICE} cannot be opened ({error.strerror}): {found.cause}",
            f"{found.hint}\nor run xbuild as root: it uses loop devices",
        ) from error


def find_server(filesystem: str) -> str | None:
    """Return the path of a program that serves a type of file system, None if there is none."""
    paths = (find_program(name) for name in SERVERS.get(filesystem, ()))
    return next((path for path in paths if path is not None), None)


def install_hint(filesystem: str) -> str:
    """Return how to get a program that serves a type of file system."""
    command = package_command(SERVERS[filesystem][-1])
    return f"{command}\nor run xbuild as root: it uses loop devices"


def _served(volume: Volume, filesystem: Filesystem | None, request: Request) -> Volume:
    """Decide how a volume is served. Raises UnsupportedImage, ImageToolMissing."""
    kind = volume.filesystem
    if kind not in SERVERS:
        raise UnsupportedImage(
            f"Cannot serve the {kind} of {request.target} without root: only the kernel reads it",
            "sudo xbuild run: root uses loop devices",
        )
    program = find_server(kind)
    if program is None:
        raise ImageToolMissing(
            f"Cannot serve the {kind} of {request.target}: {SERVERS[kind][-1]} is not installed",
            install_hint(kind),
        )
    volume = checked(volume, request)
    leaves_alone = request.read_only or request.ephemeral or volume.read_only
    options = f"offset={volume.offset},{_OPTIONS}"
    has_journal = filesystem is not None and filesystem.has_journal_to_replay
    if has_journal and not leaves_alone and volume.offset:
        # e2fsprogs forget the offset when they open it again afterwards (1.47.0).
        raise UnsupportedImage(
            f"Cannot write to {_part(volume)} of {request.target} without root: its journal has to"
            " be replayed first, and no program does so inside of an image",
            f"once: sudo xbuild run --fsck {shlex.quote(request.target)} true\n"
            "--read-only and --ephemeral do without",
        )
    if kind == "ext4" and leaves_alone:
        options += ",ro,norecovery" if has_journal else ",ro"
    return replace(volume, read_only=leaves_alone, server=(program, *_FLAGS, options))


def _part(volume: Volume) -> str:
    return f"partition {volume.partition}" if volume.partition else "the file system"


def _describe(
    request: Request, survey: ImageSurvey, lock: ImageLock, root: Volume, reader: TreeReader
) -> Disk:
    by_number = {part.partition.number: part for part in survey.partitions}
    below = wanted_below(survey, by_number, root)
    notes = list(survey.notes)
    seats, closed = [], []
    for volume, mount in below:
        place = place_of(reader, mount.target, notes)
        if place is None:
            continue
        try:
            served = _served(volume, by_number[volume.partition].filesystem, request)
        except (UnsupportedImage, ImageToolMissing) as error:
            where = "not there" if place.missing else "left as it is, and read-only"
            notes.append(f"{mount.target} is {where}: {error.message}")
            if not place.missing and not place.covered:
                closed.append(place.path)
            continue
        seats.append(Seat(served, place, mount.target))
    volumes = (root, *(seat.volume for seat in seats))
    notes += state_notes(survey, volumes, request)
    notes += _what_differs(volumes)
    status = os.fstat(lock.fd)
    return Disk(
        request.target,
        status.st_size,
        status.st_mtime_ns,
        is_exclusive=not all(volume.read_only for volume in volumes),
        root=root,
        seats=tuple(seats),
        closed=tuple(closed),
        notes=tuple(notes),
    )


def _what_differs(volumes: tuple[Volume, ...]) -> list[str]:
    programs = dict.fromkeys(os.path.basename(volume.server[0]) for volume in volumes)
    found = [f"without root, {' and '.join(programs)} serves the image through FUSE, slower"]
    if any(not volume.read_only for volume in volumes):
        found.append(
            "it is written without a journal: after a power cut, or if that program is killed,"
            " run with --fsck"
        )
    return found
