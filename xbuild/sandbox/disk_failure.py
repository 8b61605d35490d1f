"""Why an image could not be used, or not be written back, in words. Off the start path."""

from __future__ import annotations

import errno
import os
import signal

from xbuild.errors import CannotAttach, DamagedImage, ImageBusy, ImageError, UnsupportedImage
from xbuild.plan import steps
from xbuild.record import HostPath
from xbuild.sandbox.filelock import lock_holders
from xbuild.sandbox.holders import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import Plan
    from xbuild.sandbox.channel import Report

_MODULES = {"ext2": "ext4", "ext3": "ext4"}


def explain_image_report(report: Report, plan: Plan) -> ImageError:
    """Return the error that tells a person about ``report``, which concerns the plan's image."""
    if report.phase == "flush":
        return _unwritten(report, plan.target)
    if report.phase == "serve":
        return _lost(report, plan)
    step = plan.steps[report.index]
    if isinstance(step, steps.OpenImage):
        return explain_open(report.errno, step.image, is_exclusive=step.is_exclusive)
    if isinstance(step, steps.AttachLoop):
        return explain_attach(report.errno, report.subject, plan.target)
    if isinstance(step, steps.CheckFilesystem):
        return explain_check(step, plan.target)
    if isinstance(step, steps.ServeFilesystem):
        return _unserved(report, step, plan.target)
    assert isinstance(step, steps.MountFilesystem)
    return explain_mount(report.errno, step, plan.target)


def _unwritten(report: Report, image: HostPath) -> ImageError:
    what = f"partition {report.subject}" if report.subject != "0" else "the file system"
    is_unclean = report.errno == errno.EUCLEAN  # as found when its program had ended
    reason = "it was left with errors" if is_unclean else os.strerror(report.errno)
    return ImageError(
        f"Not all that was written could be written back to {what} of {image}: {reason}",
        "is the disk that the image is on full, or failing? df, dmesg; then run it with --fsck",
    )


def _lost(report: Report, plan: Plan) -> ImageError:
    volume, _, said = report.subject.partition("\n")
    step = next(
        s for s in plan.steps if isinstance(s, steps.ServeFilesystem) and s.volume == volume
    )
    how = f"was ended by {signal.Signals(report.errno).name}" if report.errno else "gave up"
    reason = f": {said}" if said else ""
    return ImageError(
        f"{os.path.basename(step.argv[0])}, which served {_what(step.partition, plan.target)},"
        f" {how}{reason}",
        "nothing was written; run it again"
        if step.read_only
        else "what was written may be incomplete: repair it with --fsck",
    )


def _unserved(report: Report, step: steps.ServeFilesystem, image: HostPath) -> ImageError:
    reason = report.subject or os.strerror(report.errno)
    return ImageError(
        f"{os.path.basename(step.argv[0])} cannot serve {_what(step.partition, image)}: {reason}",
        "root has the kernel's own driver: sudo xbuild run; --fsck repairs what can be repaired",
    )


def _what(partition: int, image: HostPath) -> str:
    return f"partition {partition} of {image}" if partition else image


def explain_open(number: int, image: HostPath, *, is_exclusive: bool) -> ImageError:
    """Return the error for an image that could not be opened and locked."""
    if number in (errno.EWOULDBLOCK, errno.EBUSY):
        return busy_error(image, is_exclusive=is_exclusive)
    if number == errno.ESTALE:
        return ImageBusy(
            f"{image} has changed since it was looked at, a moment ago",
            f"something else writes to it: xbuild who {image}",
        )
    return ImageError(
        f"Cannot open {image}: {os.strerror(number)}",
        "--read-only and --ephemeral leave it as it is" if is_exclusive else "",
    )


def busy_error(image: HostPath, *, is_exclusive: bool) -> ImageBusy:
    """Return the refusal of an image that others have, with their names."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    names = [f"{name_of(pid)} ({pid})" for pid in lock_holders(fd)]
    os.close(fd)
    who = " and ".join(names) or "a process that cannot be seen from here"
    return ImageBusy(
        f"{image} is being {'used' if is_exclusive else 'written'} by {who}",
        "wait for it, or use a copy: cp --sparse=always --reflink=auto; xbuild who says more",
    )


def explain_attach(number: int, subject: str, image: HostPath) -> CannotAttach:
    """Return the error for a loop device that could not be had."""
    hints = {
        errno.EACCES: "loop devices need root",
        errno.EPERM: "loop devices need root",
        errno.ENOENT: "as root: modprobe loop; in a container, its /dev needs the loop devices",
        errno.EBUSY: "losetup -l shows who has them all",
    }
    place = f" at {subject}" if subject else ""
    return CannotAttach(
        f"Cannot attach {image} to a loop device: {os.strerror(number)}{place}",
        hints.get(number, ""),
    )


def explain_check(step: steps.CheckFilesystem, image: HostPath) -> DamagedImage:
    """Return the error for a file system that is not sound after its check."""
    program = os.path.basename(step.argv[0])
    what = _what(step.partition, image)
    if program == "btrfs":
        return DamagedImage(
            f"btrfs check found errors in {what} (its messages are above)",
            "it is not repaired: take the files out first (mount -o ro,rescue=all, or btrfs"
            " restore), then on a copy: btrfs check --repair",
        )
    hint = "work on a copy, and see the program's manual page"
    if program == "xfs_repair":
        hint = "where its journal is damaged, xfs_repair -L drops it: on a copy"
    return DamagedImage(
        f"{program} could not repair {what} (its messages are above)",
        hint,
    )


def explain_mount(number: int, step: steps.MountFilesystem, image: HostPath) -> ImageError:
    """Return the error for a file system that could not be mounted."""
    what = f"the {step.filesystem} file system"
    if step.partition:
        what += f" of partition {step.partition}"
    if number == errno.ENODEV:
        return lacks_filesystem(step.filesystem, f"{what} of {image}")
    subvolume = step.volume.partition(":")[2]
    if number == errno.ENOENT and subvolume:
        return ImageError(
            f"Cannot mount {what} of {image}: it has no subvolume {subvolume}",
            "--subvolume names another; without it the default one is taken",
        )
    reason = os.strerror(number)
    if number == errno.EINVAL:
        reason = f"the kernel does not accept it ({reason})"
    return DamagedImage(
        f"Cannot mount {what} of {image}: {reason}",
        "dmesg has the kernel's reason; "
        + ("btrfs check may say more" if step.filesystem == "btrfs" else "--fsck may repair it"),
    )


def lacks_filesystem(filesystem: str, what: str) -> UnsupportedImage:
    """Return the error for a file system that this kernel does not know."""
    module = _MODULES.get(filesystem, filesystem)
    return UnsupportedImage(
        f"Cannot mount {what}: this kernel has no {filesystem}",
        f"as root: modprobe {module} (CONFIG_{module.upper()}_FS)",
    )
