"""Where the container's mounts are put: how each place comes to be, with nothing made on disk."""

from __future__ import annotations

import stat

from xbuild.errors import TargetError
from xbuild.plan import steps
from xbuild.plan.request import TmpfsRequest
from xbuild.record import GuestPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Place
    from xbuild.plan.ids import Owner
    from xbuild.plan.request import BindRequest, OverlayRequest, Request
    from xbuild.plan.steps import Create, Step


class MountPoints:
    """Decides for one place after the other, in the order of mounting, and knows what came before.

    With ``is_bare`` the root is a tmpfs but for /usr: what the tree has elsewhere is not there.
    """

    def __init__(self, request: Request) -> None:
        self._target = request.target
        # Where nothing can change there is nothing to discard.
        self.is_overlay = request.ephemeral and not request.read_only
        self.is_bare = request.volatile
        self._missing: dict[GuestPath, list[tuple[GuestPath, Create]]] = {}
        self._requested: dict[GuestPath, TmpfsRequest | BindRequest | OverlayRequest] = {}

    def add(self, path: GuestPath, mount: TmpfsRequest | BindRequest | OverlayRequest) -> None:
        """Note that a mount which was asked for is at ``path``."""
        self._requested[path] = mount

    def create_if_missing(self, place: Place, kind: Create, asked: GuestPath) -> Create:
        """Return how a mount point comes to be; on the tree's own disk nothing is made.

        Raises TargetError where the tree has something else there.
        """
        if self.is_bare and not f"{place.path}/".startswith("/usr/"):
            return kind
        above = self.requested_above(place.path)
        if above is not None:
            return kind if isinstance(above, TmpfsRequest) else "no"
        if stat.S_ISDIR(place.mode) != (kind == "directory" or bool(place.missing)):
            where = f"{place.existing} is" if place.missing else "it is"
            found = "a directory" if stat.S_ISDIR(place.mode) else "no directory"
            raise TargetError(
                f"Cannot mount on {asked}: in {self._target} {where} {found}",
                "name another place inside the tree",
            )
        if not place.missing:
            return "no"
        if place.covered or self.is_overlay:
            return kind
        self._missing.setdefault(place.existing, []).append((place.path, kind))
        return "no"

    def requested_above(
        self, path: GuestPath
    ) -> TmpfsRequest | BindRequest | OverlayRequest | None:
        """Return the lowest mount that was asked for strictly above ``path``."""
        above = path.rpartition("/")[0]
        while above:
            if above in self._requested:
                return self._requested[GuestPath(above)]
            above = above.rpartition("/")[0]
        return None

    def scaffolds(self, owner: Owner) -> tuple[list[Step], list[str]]:
        """Return covers for directories that lack mount points, the outermost first, and notes."""
        covers: list[Step] = []
        notes: list[str] = []
        for directory in sorted(self._missing):
            covers.append(steps.Scaffold(directory, tuple(self._missing[directory]), owner))
            names = ", ".join(path for path, _ in self._missing[directory])
            notes.append(
                f"the tree has no {names}: {directory} is shown with it, and is read-only at its"
                " own level for this run"
            )
        return covers, notes
