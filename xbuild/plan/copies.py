"""Steps that copy files into a container before its command, and out of it afterwards."""

from __future__ import annotations

from xbuild.record import GuestPath, HostPath, Record


class CopyIn(Record):
    """Copy a file or directory of the host's to ``target``, with the rights of who started xbuild.

    What is there belongs to root inside. Into an existing directory, or under a new name.
    """

    source: HostPath
    target: GuestPath


class CopyOut(Record):
    """Copy a file or directory to the host once the command has ended, however it did.

    What is there belongs to who started xbuild. Into an existing directory, or under a new name.
    There is no symbolic link on the way to ``target``: one that is met is a guest's trick.
    """

    source: GuestPath
    target: HostPath
