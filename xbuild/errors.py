"""Everything that can go wrong, as types: a message, a hint and an exit status.

A message says what was being done, to what, and why it failed; a hint says what to do next.
Narrow subclasses live here as well, grouped by domain, so that a caller finds them in one place.
"""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_TIMEOUT = 124
EXIT_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128


class XbuildError(Exception):
    """A failure explained to the person who asked: ``message`` and, where known, ``hint``."""

    exit_status = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(XbuildError):
    """The request itself is malformed."""

    exit_status = EXIT_USAGE


# binary


class UnknownArchitecture(XbuildError):
    """A name or an ELF header that no row of the architecture table matches."""


class NotElf(XbuildError):
    """A file that is no ELF object at all (a script, a PE file, text)."""


class DamagedElf(XbuildError):
    """An ELF file that is truncated or whose headers contradict each other."""


# tree


class TargetError(XbuildError):
    """A target that cannot be read as a root filesystem, an archive or a program."""


class TargetNotFound(TargetError):
    """No such path."""


class NotARootfs(TargetError):
    """A directory or archive in which no program of any architecture was found."""


class SymlinkLoop(TargetError):
    """More than 40 symbolic links in one resolution (path_resolution(7))."""


class UnknownFormat(TargetError):
    """A file that is neither a program nor an archive of a tree; the message says what it is."""


class DamagedArchive(TargetError):
    """An archive that is cut off, garbled, or beyond what is sane to unpack."""


# emulation


class InterpreterError(XbuildError):
    """A qemu-user interpreter that cannot serve."""


class InterpreterMissing(InterpreterError):
    """No static interpreter for the architecture on this host."""


class InterpreterUnsuitable(InterpreterError):
    """A file that is dynamic, a script, of a foreign machine, or emulates something else."""


class BinfmtError(XbuildError):
    """The binfmt_misc registry refused or does not serve."""


# toolset


class ToolsetError(XbuildError):
    """A set of native tools that cannot serve."""


class NoDispatcher(ToolsetError):
    """An interpreter or a host for which native programs cannot be chosen at exec."""


class ToolsetMissing(ToolsetError):
    """No set was prepared for this tree."""


class ToolsetDamaged(ToolsetError):
    """A set whose files are not what its manifest says."""


# native


class DistccRefused(XbuildError):
    """A distcc server that cannot be reached, or has other compilers."""


class CorpusFailed(XbuildError):
    """The corpus cannot run in a tree, so that nothing can be proven of its native tools."""


class ProviderError(XbuildError):
    """Native tools cannot be had for a tree: the message says what lacks or differs."""


class ProviderUnsuitable(ProviderError):
    """Programs of a provider that cannot be relocated, or lack what they need."""


class ToolRefused(ProviderError):
    """A native program that is not the tree's own built for this host."""


# plan


class ProfileError(UsageError):
    """A profile that is missing, malformed or of the wrong type."""


class HostUnable(XbuildError):
    """The host lacks something that the request needs."""


# sandbox


class SetupFailed(XbuildError):
    """A step of the plan failed; nothing is left behind."""


class TimedOut(XbuildError):
    """The run was ended because its time was up."""

    exit_status = EXIT_TIMEOUT


class NameTaken(XbuildError):
    """A container with the name that was asked for is running."""


class TreeLocked(XbuildError):
    """Somebody has the tree alone, or somebody uses what was to be had alone."""


class NoSuchContainer(XbuildError):
    """No running container has the name or the tree, or more than one has."""


class ContainerFailed(XbuildError):
    """A running container does not answer, or could not do what was asked."""


class CommandNotFound(XbuildError):
    """The command is not in the tree."""

    exit_status = EXIT_NOT_FOUND


class CommandNotExecutable(XbuildError):
    """The command is there, but cannot be executed."""

    exit_status = EXIT_NOT_EXECUTABLE


# source


class SourceError(XbuildError):
    """A tree cannot be obtained from where it was to come from."""


class MirrorUnavailable(SourceError):
    """The mirror cannot be reached, or does not serve what it lists."""

    def __init__(self, message: str, hint: str = "", *, is_offline: bool = False) -> None:
        super().__init__(message, hint)
        self.is_offline = is_offline


class PackageUnavailable(SourceError):
    """The suite has no such package, or none for this architecture."""


class DamagedPackage(SourceError):
    """A downloaded package that dpkg-deb cannot read."""


# image


class ImageError(XbuildError):
    """A disk image that cannot serve as asked."""


class DamagedImage(ImageError):
    """An image that is cut off, or whose partition table or file systems contradict themselves."""


class UnsupportedImage(ImageError):
    """What is recognised but not opened here: qcow2, LUKS, LVM, RAID."""


class AmbiguousRoot(ImageError):
    """More than one partition could be the root: the message names them."""


class NoSuchPartition(ImageError):
    """No partition has the number or the label that was asked for, or none has a root tree."""


class ImageToolMissing(ImageError):
    """A program that reads or writes this kind of image is not installed."""


class ImageBusy(ImageError):
    """Another process holds the image: the message names it."""


class CannotAttach(ImageError):
    """No loop device could be had for an image."""


class DeviceRefused(ImageError):
    """A device that must not be written: it is in use, too small, or not what was meant."""


class DeviceFailed(ImageError):
    """A device that failed while it was written or read back; it is not bootable."""
