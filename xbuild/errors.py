"""Everything that can go wrong, as types: a message, a hint and an exit status.

A message says what was being done, to what, and why it failed; a hint says what to do next.
Narrow subclasses are found here as well, so that a caller has one place to look: those that a start
of a container may raise, and the others in ``xbuild.rare_errors``, loaded when one is asked for.
"""

from __future__ import annotations

from xbuild.start_errors import EXIT_FAILED as EXIT_FAILED
from xbuild.start_errors import EXIT_NOT_EXECUTABLE as EXIT_NOT_EXECUTABLE
from xbuild.start_errors import EXIT_NOT_FOUND as EXIT_NOT_FOUND
from xbuild.start_errors import EXIT_REBOOT as EXIT_REBOOT
from xbuild.start_errors import EXIT_SIGNAL_BASE as EXIT_SIGNAL_BASE
from xbuild.start_errors import EXIT_TIMEOUT as EXIT_TIMEOUT
from xbuild.start_errors import EXIT_USAGE as EXIT_USAGE
from xbuild.start_errors import BinfmtError as BinfmtError
from xbuild.start_errors import DamagedElf as DamagedElf
from xbuild.start_errors import HostUnable as HostUnable
from xbuild.start_errors import InterpreterError as InterpreterError
from xbuild.start_errors import InterpreterMissing as InterpreterMissing
from xbuild.start_errors import InterpreterUnsuitable as InterpreterUnsuitable
from xbuild.start_errors import NameTaken as NameTaken
from xbuild.start_errors import NotARootfs as NotARootfs
from xbuild.start_errors import NotElf as NotElf
from xbuild.start_errors import SetupFailed as SetupFailed
from xbuild.start_errors import SymlinkLoop as SymlinkLoop
from xbuild.start_errors import TargetError as TargetError
from xbuild.start_errors import TargetNotFound as TargetNotFound
from xbuild.start_errors import UnknownArchitecture as UnknownArchitecture
from xbuild.start_errors import UnknownArchitectureName as UnknownArchitectureName
from xbuild.start_errors import UsageError as UsageError
from xbuild.start_errors import XbuildError as XbuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.rare_errors import AmbiguousRoot as AmbiguousRoot
    from xbuild.rare_errors import CannotAttach as CannotAttach
    from xbuild.rare_errors import CommandNotExecutable as CommandNotExecutable
    from xbuild.rare_errors import CommandNotFound as CommandNotFound
    from xbuild.rare_errors import ContainerFailed as ContainerFailed
    from xbuild.rare_errors import CorpusFailed as CorpusFailed
    from xbuild.rare_errors import DamagedArchive as DamagedArchive
    from xbuild.rare_errors import DamagedImage as DamagedImage
    from xbuild.rare_errors import DamagedPackage as DamagedPackage
    from xbuild.rare_errors import DeviceFailed as DeviceFailed
    from xbuild.rare_errors import DeviceRefused as DeviceRefused
    from xbuild.rare_errors import DistccRefused as DistccRefused
    from xbuild.rare_errors import DownloadFailed as DownloadFailed
    from xbuild.rare_errors import ImageBusy as ImageBusy
    from xbuild.rare_errors import ImageError as ImageError
    from xbuild.rare_errors import ImageToolMissing as ImageToolMissing
    from xbuild.rare_errors import MirrorUnavailable as MirrorUnavailable
    from xbuild.rare_errors import NoDispatcher as NoDispatcher
    from xbuild.rare_errors import NoSuchContainer as NoSuchContainer
    from xbuild.rare_errors import NoSuchPartition as NoSuchPartition
    from xbuild.rare_errors import PackageUnavailable as PackageUnavailable
    from xbuild.rare_errors import ProfileError as ProfileError
    from xbuild.rare_errors import ProviderError as ProviderError
    from xbuild.rare_errors import ProviderUnsuitable as ProviderUnsuitable
    from xbuild.rare_errors import SignatureRefused as SignatureRefused
    from xbuild.rare_errors import SourceError as SourceError
    from xbuild.rare_errors import TimedOut as TimedOut
    from xbuild.rare_errors import ToolRefused as ToolRefused
    from xbuild.rare_errors import ToolsetDamaged as ToolsetDamaged
    from xbuild.rare_errors import ToolsetError as ToolsetError
    from xbuild.rare_errors import ToolsetMissing as ToolsetMissing
    from xbuild.rare_errors import TreeLocked as TreeLocked
    from xbuild.rare_errors import UnknownFormat as UnknownFormat
    from xbuild.rare_errors import UnsafeArchive as UnsafeArchive
    from xbuild.rare_errors import UnsupportedImage as UnsupportedImage
    from xbuild.rare_errors import WrongDigest as WrongDigest
else:

    def __getattr__(name: str) -> type[Exception]:
        """Return one of those that a start does without (PEP 562)."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from xbuild import rare_errors

        try:
            return vars(rare_errors)[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
