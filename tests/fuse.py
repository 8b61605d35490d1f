"""Ordinary users who may open the FUSE device, whatever its mode is on this machine."""

from __future__ import annotations

import os

from tests.capability import require
from tests.images import find_tool
from tests.users import User

DEVICE = "/dev/fuse"
# Its own node with the mode that udev gives it, in a mount namespace that goes with the command.
_OPEN_DEVICE = (
    "mount -t tmpfs -o mode=755 none /mnt && mknod -m {mode} /mnt/fuse c 10 229"
    ' && mount --bind /mnt/fuse /dev/fuse && {more} && exec "$@"'
)


class FuseUser(User):
    """Someone whose commands see the FUSE device with ``mode``, and ``hidden`` programs not."""

    mode: str = "666"
    hidden: tuple[str, ...] = ()

    def argv(self, command: list[str]) -> list[str]:
        """Return the command line that runs ``command`` as this user."""
        plain = super().argv(command)
        if self.is_self:
            return plain
        more = " && ".join(["true", *(f"mount --bind /dev/null {path}" for path in self.hidden)])
        script = _OPEN_DEVICE.format(mode=self.mode, more=more)
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *plain]


def fuse_user(user: User, **changes: object) -> FuseUser:
    """Return ``user`` with the device, where this machine has it and the programs."""
    require("fuse", os.path.exists(DEVICE), f"there is no {DEVICE}: modprobe fuse")
    if user.is_self:
        require("fuse", os.access(DEVICE, os.R_OK | os.W_OK), f"{DEVICE} may not be opened")
        require("root", not changes, "only root arranges another host")
    for program in ("fuse2fs", "squashfuse"):
        require(program, find_tool(program) is not None, f"{program} is not installed")
    facts = {name: getattr(user, name) for name in User.__match_args__}
    return FuseUser(**(facts | changes))  # type: ignore[arg-type]  # fields by name
