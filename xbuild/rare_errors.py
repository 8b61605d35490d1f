"""The errors that no plain start of a container raises: of images, native tools, other commands.

They are found in ``xbuild.errors`` as well, where everybody looks for them: 32 classes are made in
0.2 ms, which each start would spend on what it does not raise.
"""

from __future__ import annotations

from xbuild.start_errors import (
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_TIMEOUT,
    TargetError,
    UsageError,
    XbuildError,
)

# tree


class UnknownFormat(TargetError):
    """A file that is neither a program nor an archive of a tree; the message says what it is."""


class DamagedArchive(TargetError):
    """An archive that is cut off, garbled, or beyond what is sane to unpack."""

    usual_hint = "fetch it, or pack it, again; sha256sum tells whether it is what was sent"


# toolset


class ToolsetError(XbuildError):
    """A set of native tools that cannot serve."""


class NoDispatcher(ToolsetError):
    """An interpreter or a host for which native programs cannot be chosen at exec."""

    usual_hint = "without --native the tree's own programs do the work, emulated"


class ToolsetMissing(ToolsetError):
    """No set was prepared for this tree."""


class ToolsetDamaged(ToolsetError):
    """A set whose files are not what its manifest says."""


# native


class DistccRefused(XbuildError):
    """A distcc server that cannot be reached, or has other compilers."""

    usual_hint = "xbuild native serve on that machine, with the same set; or leave it out"


class CorpusFailed(XbuildError):
    """The corpus cannot run in a tree, so that nothing can be proven of its native tools."""


class ProviderError(XbuildError):
    """Native tools cannot be had for a tree: the message says what lacks or differs."""

    usual_hint = "without --native the tree's own programs do the work: docs/native.md"


class ProviderUnsuitable(ProviderError):
    """Programs of a provider that cannot be relocated, or lack what they need."""


class ToolRefused(ProviderError):
    """A native program that is not the tree's own built for this host."""


# plan


class ProfileError(UsageError):
    """A profile that is missing, malformed or of the wrong type."""


# sandbox


class TimedOut(XbuildError):
    """The run was ended because its time was up; ``is_idle``: because nothing moved."""

    exit_status = EXIT_TIMEOUT

    def __init__(self, message: str, hint: str = "", *, is_idle: bool = False) -> None:
        super().__init__(message, hint)
        self.is_idle = is_idle


class TreeLocked(XbuildError):
    """Somebody has the tree alone, or somebody uses what was to be had alone."""


class NoSuchContainer(XbuildError):
    """No running container has the name or the tree, or more than one has."""


class ContainerFailed(XbuildError):
    """A running container does not answer, or could not do what was asked."""

    usual_hint = "xbuild ps lists the containers that run"


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
    """The mirror cannot be reached, or does not serve what it lists.

    ``is_lasting`` where it is of no use to ask it again soon.
    """

    def __init__(self, message: str, hint: str = "", *, is_lasting: bool = False) -> None:
        super().__init__(message, hint)
        self.is_lasting = is_lasting


class PackageUnavailable(SourceError):
    """The suite has no such package, or none for this architecture."""


class UnsafeArchive(SourceError):
    """An archive with a member that leads out of the tree, or that unpacks without end."""


class DamagedPackage(SourceError):
    """A downloaded package that dpkg-deb cannot read."""


class DownloadFailed(SourceError):
    """A file that a server does not give, or not whole; ``http_status`` where it said why."""

    usual_hint = "curl -I URL says what the server has there; proxies are those of https_proxy"

    def __init__(self, message: str, hint: str = "", *, http_status: int = 0) -> None:
        super().__init__(message, hint)
        self.http_status = http_status


class WrongDigest(SourceError):
    """A file whose content is not what its list, or the user, says that it is."""


class SignatureRefused(SourceError):
    """What no key of the keyring has signed, or not as it is; or nothing to check it with."""

    usual_hint = "take nothing that is not signed: another mirror, or the same one later"


# image


class ImageError(XbuildError):
    """A disk image that cannot serve as asked."""


class DamagedImage(ImageError):
    """An image that is cut off, or whose partition table or file systems contradict themselves."""

    usual_hint = "fetch it, or read the card, again; xbuild inspect says what of it is whole"


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

    usual_hint = "dmesg has the kernel's own words; try another card, reader or port"
