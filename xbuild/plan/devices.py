"""Showing devices of the host: usable inside, and as they are outside whatever is done to them."""

from __future__ import annotations

from xbuild.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.host import Host
    from xbuild.plan.steps import Create, Owner
    from xbuild.record import GuestPath, HostPath


def has_devices(source: HostPath, host: Host) -> bool:
    """Tell whether a directory is one of devices, such as /dev/dri: never all of /dev."""
    mount = host.mount_of(source)
    return mount.filesystem == "devtmpfs" and source != mount.point


def device_bind(source: HostPath, target: GuestPath, create: Create, owner: Owner) -> steps.Bind:
    """Bind a device node read-only: it can be used, but not chmod'ed or chown'ed from inside."""
    return steps.Bind(
        source, target, True, recursive=False, create=create, owner=owner, nodev=False
    )


def directory_bind(source: HostPath, target: GuestPath, create: Create, owner: Owner) -> steps.Bind:
    """Bind a directory of devices in the same way."""
    return steps.Bind(source, target, True, create=create, owner=owner, nodev=False)
