"""What a tree has at the places that a container mounts over, and whom it knows: reading only."""

from __future__ import annotations

import os
import stat

from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound, UsageError
from xbuild.record import GuestPath, Record
from xbuild.tree.path_walk import MAXSYMLINKS
from xbuild.tree.resolve import DirectoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.request import BindRequest, Request
    from xbuild.record import HostPath
    from xbuild.tree.resolve import TreeReader

API_DIRECTORIES = (
    GuestPath("/proc"),
    GuestPath("/sys"),
    GuestPath("/dev"),
    GuestPath("/run"),
    GuestPath("/tmp"),
)
_ACCOUNT_FILE_LIMIT = 1 << 20  # bytes
_ID_DIGITS = 20  # leading zeros and all; ids have 32 bits


class Place(Record):
    """Where a guest path leads: what exists, free of symlinks, and what is missing below it.

    ``covered`` is set where the path enters one of the container's own file systems, in which
    everything has yet to be made. ``mode`` is the st_mode of what exists.
    """

    existing: GuestPath
    missing: tuple[str, ...]
    mode: int
    covered: bool = False

    @property
    def path(self) -> GuestPath:
        """The whole path, symlinks resolved."""
        return _joined(_parts(self.existing), *self.missing)


class Account(Record):
    """A user of the tree, with all its groups (passwd(5), group(5))."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: GuestPath
    shell: GuestPath | None


class Guest(Record):
    """The facts about a tree that a plan needs beyond its survey."""

    api: tuple[Place, ...]  # in the order of API_DIRECTORIES
    resolv_conf: Place | None  # None where it cannot be reached
    hosts: Place | None
    binds: tuple[Place, ...]
    source_modes: tuple[int, ...]  # st_mode of what is to be bound, on the host
    tmpfs: tuple[Place, ...]
    interpreters: tuple[Place, ...]  # of host entries without F, where the kernel looks for them
    account: Account
    home_exists: bool
    overlays: tuple[Place, ...] = ()
    hidden: tuple[Place, ...] = ()
    links: tuple[tuple[str, str], ...] = ()  # at the top, where nothing but /usr is to be shown
    setuid_command: GuestPath | None = None  # what an ordinary user inside would gain rights by


def api_path(guest: Guest, name: str) -> GuestPath:
    """Return where one of API_DIRECTORIES is in the tree, symlinks resolved."""
    return guest.api[API_DIRECTORIES.index(GuestPath(name))].path


def read_guest(
    reader: TreeReader, request: Request, interpreters: tuple[GuestPath, ...] = ()
) -> Guest:
    """Read the facts that a plan for ``request`` needs.

    ``interpreters`` are paths at which the host's registry expects one. Raises UsageError for an
    unknown user or a target outside the tree, TargetError for a tree that cannot be searched or
    whose links leave no place to the container's own directories, or a file to be bound that is not
    there.
    """
    api = tuple(locate(reader, path) for path in API_DIRECTORIES)
    _check_apart(reader, api)
    covered = frozenset(place.path for place in api)
    account = read_account(reader, request.user)
    home = _locate_if_possible(reader, account.home, covered)
    binds = tuple(locate(reader, bind.destination, covered) for bind in request.binds)
    tmpfs = tuple(locate(reader, each.destination, covered) for each in request.tmpfs)
    overlays = tuple(locate(reader, each.destination, covered) for each in request.overlays)
    made = {place.path for place in (*binds, *tmpfs, *overlays)}
    return Guest(
        api=api,
        resolv_conf=_locate_if_possible(reader, GuestPath("/etc/resolv.conf"), covered),
        hosts=_locate_if_possible(reader, GuestPath("/etc/hosts"), covered),
        binds=binds,
        source_modes=tuple(_mode_to_bind(bind) for bind in request.binds),
        tmpfs=tmpfs,
        interpreters=tuple(locate(reader, path, covered) for path in interpreters),
        account=account,
        home_exists=home is not None
        and ((not home.missing and not request.volatile) or home.path in made),
        overlays=overlays,
        hidden=(
            *(locate(reader, path, covered) for path in request.inaccessible),
            *_those_there(reader, request.inaccessible_if_there, covered),
        ),
        links=_read_links(reader) if request.volatile else (),
        setuid_command=_setuid_command(reader, request, covered) if account.uid else None,
    )


def _read_links(reader: TreeReader) -> tuple[tuple[str, str], ...]:
    from xbuild.tree.top_links import read_top_links  # off the start path

    if not isinstance(reader, DirectoryReader):
        raise UsageError(
            "--volatile yes needs a tree in a directory, or an image that is mounted",
            "--volatile overlay discards all changes and works with any tree",
        )
    return read_top_links(reader)


def _setuid_command(
    reader: TreeReader, request: Request, covered: frozenset[GuestPath]
) -> GuestPath | None:
    if not request.command or not request.command[0]:
        return None
    name = request.command[0]
    directories = ("/usr/bin", "/bin", "/usr/sbin", "/sbin") if "/" not in name else ("",)
    for directory in directories:
        path = GuestPath(f"{directory}/{name.lstrip('/')}")
        place = _locate_if_possible(reader, path, covered)
        if place is not None and not place.missing:
            return path if place.mode & stat.S_ISUID and stat.S_ISREG(place.mode) else None
    return None


def _check_apart(reader: TreeReader, api: tuple[Place, ...]) -> None:
    """Raise TargetError where one file system would be mounted over another, or over the tree.

    What is made later in the lower one would then be made on disk.
    """
    taken = {GuestPath("/"): GuestPath("/")}
    for name, place in zip(API_DIRECTORIES, api, strict=True):
        other = taken.setdefault(place.path, name)
        if other != name:
            raise TargetError(
                f"In {reader.label}, {name} is a link that leads to {other}: a container needs one"
                " of its own there",
                f"replace the link by a directory: {reader.label}{name}",
            )


def _locate_if_possible(
    reader: TreeReader, path: GuestPath, covered: frozenset[GuestPath]
) -> Place | None:
    """Locate what a run can do without; None for a symlink loop or what cannot be searched."""
    try:
        return locate(reader, path, covered)
    except TargetError:
        return None


def _those_there(
    reader: TreeReader, paths: tuple[GuestPath, ...], covered: frozenset[GuestPath]
) -> tuple[Place, ...]:
    """Locate those paths that the tree has."""
    places = (_locate_if_possible(reader, path, covered) for path in paths)
    return tuple(place for place in places if place is not None and not place.missing)


def _mode_to_bind(bind: BindRequest) -> int:
    if bind.make_source and not os.path.lexists(bind.source):
        return stat.S_IFDIR
    return source_mode(bind.source)


def source_mode(source: HostPath) -> int:
    """Return st_mode of a bind's source. Raises TargetNotFound, TargetError."""
    try:
        return os.stat(source).st_mode
    except FileNotFoundError as error:
        raise TargetNotFound(
            f"Cannot bind {source}: there is no such file or directory on the host",
            f"with a dash before it, -{source}, it is bound only where it is there",
        ) from error
    except OSError as error:
        raise TargetError(
            f"Cannot bind {source}: {error.strerror}",
            "look at the path and at who may read it: ls -ld",
        ) from error


def locate(
    reader: TreeReader, path: GuestPath, covered: frozenset[GuestPath] = frozenset()
) -> Place:
    """Follow ``path`` as far as it exists in the tree, dangling symlinks too.

    Raises UsageError for a path that is not absolute or climbs out of the tree, SymlinkLoop, and
    TargetError where a directory cannot be searched.
    """
    if not path.startswith("/"):
        raise UsageError(f"Not an absolute path inside the tree: {path}", "begin it with a slash")
    done: list[str] = []
    pending = _parts(path)
    if _climbs_out(pending):
        raise UsageError(
            f"The path leaves the tree: {path}", "name a place inside, without leading .."
        )
    mode, links = stat.S_IFDIR, 0  # mode: of what ``done`` leads to
    while pending:
        name = pending.pop(0)
        if name == "..":
            del done[-1:]  # ".." of the root is the root: path_resolution(7)
            mode = stat.S_IFDIR
            continue
        found = None if _joined(done, name) in covered else reader.mode_of(_joined(done, name))
        if found is None:
            if ".." not in pending:
                return _place(done, [name, *pending], mode, covered)
            # What is missing has yet to be made, as directories: ".." goes by the name.
            done, pending, mode = [], _collapsed([*done, name, *pending]), stat.S_IFDIR
        elif stat.S_ISLNK(found):
            links += 1
            if links > MAXSYMLINKS:
                raise SymlinkLoop(f"Too many symbolic links on the way to {path} in {reader.label}")
            text = reader.link_at(_joined(done, name))
            done, mode = ([] if text.startswith("/") else done), stat.S_IFDIR
            pending = [*_parts(text), *pending]
        else:
            done.append(name)
            mode = found
    return Place(_joined(done), (), mode)


def _place(done: list[str], rest: list[str], mode: int, covered: frozenset[GuestPath]) -> Place:
    """Return a place that ends in missing names, below a covered directory if there is one."""
    names = [*done, *rest]
    for depth in range(1, len(names) + 1):
        root = _joined(names[:depth])
        if root in covered:
            return Place(root, tuple(names[depth:]), stat.S_IFDIR, covered=True)
    return Place(_joined(done), tuple(rest), mode)


def _joined(parts: list[str], *more: str) -> GuestPath:
    return GuestPath("/" + "/".join([*parts, *more]))


def _collapsed(parts: list[str]) -> list[str]:
    names: list[str] = []
    for part in parts:
        if part == "..":
            del names[-1:]
        else:
            names.append(part)
    return names


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _climbs_out(parts: list[str]) -> bool:
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


_ROOT = Account("root", 0, 0, (), GuestPath("/root"), None)


def read_account(reader: TreeReader, user: str | None) -> Account:
    """Return a user of the tree by name or number, root by default. Raises UsageError."""
    if user is None or user in ("root", "0"):
        return _ROOT
    name, _, group = user.partition(":")
    wanted = 2 if _is_number(name) else 0
    for fields in _records(reader, GuestPath("/etc/passwd"), 7):
        if fields[wanted] == name and _is_number(fields[2]) and _is_number(fields[3]):
            gid = int(fields[3]) if not group else _read_gid(reader, group)
            return Account(
                fields[0],
                int(fields[2]),
                gid,
                _supplementary(reader, fields[0], gid),
                _home(fields[5]),
                GuestPath(fields[6]) if fields[6] else None,
            )
    if _is_number(name):
        gid = _read_gid(reader, group) if group else 0
        return Account(name, int(name), gid, (gid,), GuestPath("/"), None)
    known = ", ".join(f[0] for f in _records(reader, GuestPath("/etc/passwd"), 7)[:8])
    raise UsageError(
        f"The tree has no user {name!r} in /etc/passwd",
        f"it knows {known}; or give a number" if known else "give a number",
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS


def _home(text: str) -> GuestPath:
    """Return a home directory as passwd(5) gives it, or the root where that is no place inside."""
    sound = text.startswith("/") and not _climbs_out(_parts(text))
    return GuestPath(text if sound else "/")


def _read_gid(reader: TreeReader, group: str) -> int:
    if _is_number(group):
        return int(group)
    for fields in _records(reader, GuestPath("/etc/group"), 4):
        if fields[0] == group and _is_number(fields[2]):
            return int(fields[2])
    raise UsageError(f"The tree has no group {group!r} in /etc/group", "give a number")


def _supplementary(reader: TreeReader, name: str, gid: int) -> tuple[int, ...]:
    groups = [gid]
    for fields in _records(reader, GuestPath("/etc/group"), 4):
        if _is_number(fields[2]) and name in fields[3].split(",") and int(fields[2]) != gid:
            groups.append(int(fields[2]))
    return tuple(groups)


def _records(reader: TreeReader, path: GuestPath, fields: int) -> list[list[str]]:
    try:
        text = reader.read(path, _ACCOUNT_FILE_LIMIT).decode("utf-8", "surrogateescape")
    except TargetError:
        return []
    split = (line.split(":") for line in text.split("\n") if "\0" not in line)
    return [each for each in split if len(each) >= fields]
