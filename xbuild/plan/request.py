"""What was asked for: the command line, a profile or a caller of the API, as one value."""

from __future__ import annotations

from xbuild.record import GuestPath, HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.plan.copies import CopyIn, CopyOut
    from xbuild.plan.ids import IdRange
    from xbuild.plan.inits import Init
    from xbuild.plan.lifecycle import LinkJournal, RegisterMachine
    from xbuild.plan.networks import Forward

    NetworkChoice = Literal["host", "none", "private", "veth", "bridge"]
    BinfmtChoice = Literal["auto", "private", "host"]
    NativeChoice = Literal["off", "exact", "fast"]
    UsersChoice = Literal["auto", "identity"]
    IdmapChoice = Literal["auto", "idmap", "noidmap"]
    JournalChoice = Literal["no", "auto", "host", "guest"]
    RegisterChoice = Literal["no", "auto", "yes"]
    SeccompChoice = Literal["default", "off"]


class BindRequest(Record):
    """``source`` on the host, to be seen at ``destination``.

    ``recursive``: with what is mounted below it. ``idmap``: files of root's belong to root inside,
    where the file system can do so; or surely; or never. ``make_source``: a directory that is made
    where it is not there. ``only_existing``: left out where the tree has no ``destination``.
    """

    source: HostPath
    destination: GuestPath
    read_only: bool = False
    recursive: bool = True
    idmap: IdmapChoice = "auto"
    noexec: bool = False
    nosuid: bool = True
    make_source: bool = False
    only_existing: bool = False


class TmpfsRequest(Record):
    """A tmpfs at ``destination`` with tmpfs(5) options."""

    destination: GuestPath
    options: tuple[tuple[str, str | None], ...] = ()
    mode: int = 0o1777
    read_only: bool = False
    noexec: bool = False


class OverlayRequest(Record):
    """Directories of the host shown as one, the lowest first; changes go to ``upper``."""

    lowers: tuple[HostPath, ...]
    upper: HostPath | None
    destination: GuestPath


LIMITS = ("memory", "cpus", "pids", "io_weight")  # of a request's fields


class Request(Record):
    """One run. An empty ``command`` is a login shell.

    ``target`` is absolute and free of symbolic links. ``terminal`` lists which of descriptors 0, 1
    and 2 are terminals of the caller's; ``term`` is the caller's TERM. Of ``piped``, 1 and 2 are
    pipes to xbuild, which passes on what comes, and 0 is at its end: see plan.piping.
    ``environment`` wins over what the container would set itself.
    """

    target: HostPath
    command: tuple[str, ...] = ()
    binds: tuple[BindRequest, ...] = ()
    tmpfs: tuple[TmpfsRequest, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    directory: GuestPath | None = None
    user: str | None = None
    hostname: str | None = None
    read_only: bool = False
    ephemeral: bool = False
    network: NetworkChoice = "host"
    bridge: str | None = None
    forwards: tuple[Forward, ...] = ()
    binfmt: BinfmtChoice = "auto"
    private_users: UsersChoice = "auto"
    interpreter: HostPath | None = None
    native: NativeChoice = "off"
    toolset: HostPath | None = None  # all of this set, proven or not, in place of a prepared one
    cpu: str | None = None
    terminal: tuple[int, ...] = ()
    term: str | None = None
    piped: tuple[int, ...] = ()
    partition: str | None = None  # of an image: a number or a label
    subvolume: str | None = None
    fsck: bool = False
    overlays: tuple[OverlayRequest, ...] = ()
    inaccessible: tuple[GuestPath, ...] = ()
    inaccessible_if_there: tuple[GuestPath, ...] = ()
    volatile: bool = False  # the tree's /usr, read-only, is all that is shown of it
    persist: HostPath | None = None
    copies_in: tuple[CopyIn, ...] = ()
    copies_out: tuple[CopyOut, ...] = ()
    uid_map: tuple[IdRange, ...] = ()  # () for what private_users says
    gid_map: tuple[IdRange, ...] = ()  # () for the same as uid_map
    setuid: bool = False
    capabilities: tuple[str, ...] = ()  # kept besides the default ones: plan.privileges
    drop_capabilities: tuple[str, ...] = ()
    seccomp: SeccompChoice = "default"
    no_sync: bool = False
    memory: int | None = None  # bytes
    cpus: float | None = None
    pids: int | None = None
    io_weight: int | None = None
    name: str | None = None  # None: by the tree's, made unique
    exclusive: bool = False  # nobody else uses the tree meanwhile
    detached: bool = False  # its output goes to a log, its console to those who attach
    held: bool = False  # no command: the container lives for those that join it
    timeout_s: float | None = None
    idle_timeout_s: float | None = None
    kill_timeout_s: float = 10.0
    boot: bool = False  # the tree's init is run, with the command as its arguments
    init: Init | None = None  # found so; None for other commands
    host_links: tuple[LinkJournal | RegisterMachine, ...] = ()  # decided by ``machines``
    link_journal: JournalChoice = "no"
    register: RegisterChoice = "no"  # with systemd-machined
    kill_signal: str | None = None  # asks an init to end, in place of what its kind knows
    as_pid1: bool = False  # the command is process 1 of its PID namespace
