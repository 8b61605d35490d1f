"""The vocabulary of a plan: a closed union of steps, applied in order by ``sandbox.apply``.

A step holds everything that its application needs: no environment, configuration or working
directory is consulted later. ``HostPath`` is seen from the host, ``GuestPath`` from the tree; a
guest path in a step is already resolved and free of symbolic links.
"""

from __future__ import annotations

from xbuild.plan.disks import AttachLoop as AttachLoop
from xbuild.plan.disks import CheckFilesystem as CheckFilesystem
from xbuild.plan.disks import MountFilesystem as MountFilesystem
from xbuild.plan.disks import OpenImage as OpenImage
from xbuild.plan.disks import ServeFilesystem as ServeFilesystem
from xbuild.plan.ids import IdMap as IdMap
from xbuild.plan.ids import IdRange as IdRange
from xbuild.plan.ids import Owner as Owner
from xbuild.record import GuestPath, HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from xbuild.plan.copies import CopyIn, CopyOut
    from xbuild.plan.emulate import HostEntry
    from xbuild.plan.inits import Init
    from xbuild.plan.layers import Create as Create
    from xbuild.plan.layers import Hide, MountPersistent, MountVolatile, OverlayAt
    from xbuild.plan.lifecycle import Enlist, LimitTime, LinkJournal, LockTree, RegisterMachine
    from xbuild.plan.limits import LimitResources, MountCgroup, RootCgroups
    from xbuild.plan.networks import AttachUserNetwork, AttachVeth
    from xbuild.plan.privileges import FilterCalls, LimitPrivileges
    from xbuild.plan.substitution import AboutToolset, Substitution

    Namespace = Literal["user", "mount", "pid", "ipc", "uts", "cgroup", "network"]


class EnterNamespaces(Record):
    """Leave the given namespaces for new ones; ``id_map`` where ``user`` is among them."""

    namespaces: tuple[Namespace, ...]
    id_map: IdMap | None = None


class ForbidNamespaces(Record):
    """Let nobody in the current user namespace, or below it, make namespaces of this kind.

    A cgroup namespace of one's own is what it takes to mount the host's cgroups: those above are
    owned by a user namespace in which the guest has no privilege (namespaces(7)).
    """

    namespace: Namespace


class BecomeInit(Record):
    """Fork into a new PID namespace: what follows is done by its process 1."""


class ForkGuestInit(Record):
    """Fork what becomes the command, process 1 of a PID namespace within, and have it wait.

    That namespace is of the guest's user namespace, with ``id_map``, and shown by its /proc.
    """

    id_map: IdMap


class PrivateMounts(Record):
    """Cut the propagation of every mount, so that nothing done from here on reaches the host."""


class MountTree(Record):
    """Make ``source``, a path free of symbolic links, the root of the container's view.

    ``id_map`` presents the files' owners through an idmapped mount: what is ``inside`` on disk
    is ``outside`` for the kernel. ``recursive`` also shows what is mounted below it. With
    ``volume`` it is that one of the image ``source``.
    """

    source: HostPath
    read_only: bool = False
    recursive: bool = False
    id_map: IdMap | None = None
    volume: str | None = None


class MountOverlay(Record):
    """Show ``lower`` with changes on a tmpfs that vanishes with the container.

    It becomes the root; at a ``target`` below it another volume of the same image is shown.
    """

    lower: HostPath
    recursive: bool = False
    id_map: IdMap | None = None
    owner: Owner = Owner()
    in_user_namespace: bool = False
    size: str | None = None
    volume: str | None = None
    target: GuestPath = GuestPath("/")
    create: Create = "no"


class Scaffold(Record):
    """Cover a directory by a tmpfs that has the same entries, each bound to the tree's own.

    Mount points that the tree lacks are made in it, not on disk. It is read-only at its own
    level: entries may be changed, but none added, removed or renamed.
    """

    directory: GuestPath
    missing: tuple[tuple[GuestPath, Create], ...]
    owner: Owner = Owner()


class Tmpfs(Record):
    """Mount a tmpfs; ``options`` are tmpfs(5)'s."""

    target: GuestPath
    mode: int
    owner: Owner = Owner()
    options: tuple[tuple[str, str | None], ...] = ()
    create: Create = "no"
    nodev: bool = True
    noexec: bool = False
    read_only: bool = False


class Bind(Record):
    """Show a file or directory of the host at ``target``, or a ``volume`` of the image.

    ``is_real``: a symbolic link on the way to ``source`` is somebody's trick, and an error.
    ``make_source``: a directory of the host's that is made where it is not there.
    """

    source: HostPath
    target: GuestPath
    read_only: bool = False
    recursive: bool = True
    id_map: IdMap | None = None
    create: Create = "no"
    owner: Owner = Owner()
    nodev: bool = True
    volume: str | None = None
    is_real: bool = False
    noexec: bool = False
    nosuid: bool = True
    make_source: bool = False


class ReadOnlyOver(Record):
    """Bind ``target`` onto itself read-only; absent targets are left out when planned."""

    target: GuestPath


class Proc(Record):
    """Mount a proc of the container's own PID namespace."""

    target: GuestPath = GuestPath("/proc")


class Sysfs(Record):
    """Mount a read-only sysfs of the current network namespace; what is at ``kept`` stays there."""

    target: GuestPath = GuestPath("/sys")
    kept: tuple[GuestPath, ...] = ()


class Mqueue(Record):
    """Mount the POSIX message queues of the current IPC namespace."""

    target: GuestPath = GuestPath("/dev/mqueue")


class Devpts(Record):
    """Mount an own instance of pseudo-terminals; ``gid`` is group tty, None where unmapped."""

    target: GuestPath = GuestPath("/dev/pts")
    gid: int | None = None
    owner: Owner = Owner()


class DeviceNode(Record):
    """Make a character device node on the container's own /dev."""

    target: GuestPath
    major: int
    minor: int
    mode: int = 0o666
    owner: Owner = Owner()


class Directory(Record):
    """Make a directory on one of the container's own file systems."""

    target: GuestPath
    mode: int
    owner: Owner = Owner()


class Symlink(Record):
    """Make a symbolic link on one of the container's own file systems."""

    target: GuestPath
    text: str
    owner: Owner = Owner()


class WriteFile(Record):
    """Write a file on one of the container's own file systems."""

    target: GuestPath
    content: str
    owner: Owner = Owner()


class Show(Record):
    """Bind ``source``, a file already in the container's view, at ``target``, read-only."""

    source: GuestPath
    target: GuestPath
    create: Create = "no"
    owner: Owner = Owner()


class Substitute(Record):
    """Write the table by which the interpreter tells which programs run natively.

    It holds the identities that the files have in the container's view.
    """

    table: GuestPath
    substitutions: tuple[Substitution, ...]
    about: AboutToolset
    owner: Owner = Owner()


class Pivot(Record):
    """Make the assembled view the root directory and let the host's go (pivot_root(2))."""


class MountBinfmt(Record):
    """Open a binfmt_misc instance of the current user namespace; process 1 keeps it alive."""


class Register(Record):
    """Write one registration into the private instance."""

    arch: str
    interpreter: GuestPath
    host_interpreter: HostPath
    line: bytes


class Hostname(Record):
    """Set the host name of the UTS namespace.

    One that nobody asked for is done without where that is refused: podman's seccomp filter lets
    containers make namespaces and mounts in them, and not this.
    """

    name: str
    is_required: bool = False


class LoopbackUp(Record):
    """Bring up ``lo`` in the current network namespace."""


class Exec(Record):
    """Run the command as a child of process 1, which reaps, forwards signals and ends with it.

    ``umask`` and signal dispositions are the defaults; descriptors above 2 are closed. ``fallback``
    is where to start if ``directory`` may not be entered, None where it was asked for. ``groups``
    is None where the user namespace denies setgroups(2). ``terminal`` lists which of descriptors
    0, 1 and 2 become the container's own pseudo-terminal, relayed by xbuild. ``is_only_held``:
    nothing is run, and the container lives for those that join it, until it is told to end.
    ``is_process_one``: the command has the number 1, below a process 1 of xbuild's. Of ``piped``,
    descriptors 1 and 2 are pipes to xbuild, which passes on what comes, and 0 is at its end.
    ``init`` where it is one that boots the tree: it starts in /, what joins in ``directory``.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    directory: GuestPath
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] | None = ()
    personality: int | None = None
    terminal: tuple[int, ...] = ()
    fallback: GuestPath | None = None
    is_only_held: bool = False
    is_process_one: bool = False
    piped: tuple[int, ...] = ()
    init: Init | None = None


if TYPE_CHECKING:
    Step: TypeAlias = (
        LockTree
        | Enlist
        | LimitTime
        | LinkJournal
        | RegisterMachine
        | LimitResources
        | RootCgroups
        | MountCgroup
        | EnterNamespaces
        | ForbidNamespaces
        | BecomeInit
        | ForkGuestInit
        | PrivateMounts
        | OpenImage
        | AttachLoop
        | CheckFilesystem
        | MountFilesystem
        | ServeFilesystem
        | MountTree
        | MountOverlay
        | MountPersistent
        | MountVolatile
        | OverlayAt
        | Hide
        | Scaffold
        | Tmpfs
        | Bind
        | ReadOnlyOver
        | Proc
        | Sysfs
        | Mqueue
        | Devpts
        | DeviceNode
        | Directory
        | Symlink
        | WriteFile
        | Show
        | Substitute
        | Pivot
        | MountBinfmt
        | Register
        | Hostname
        | LoopbackUp
        | AttachUserNetwork
        | AttachVeth
        | CopyIn
        | CopyOut
        | LimitPrivileges
        | FilterCalls
        | Exec
    )


class Plan(Record):
    """Everything that will be done, in order, and what the reader should know beforehand."""

    target: HostPath
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    host_entries: tuple[HostEntry, ...] = ()

    @property
    def command(self) -> Exec:
        """The last step."""
        last = self.steps[-1]
        assert isinstance(last, Exec)
        return last
