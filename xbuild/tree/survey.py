"""What a target is, by its own ELF headers: never by uname, a name or a setting.

Scope: one bounded look that every start of a container affords, and the fuller ones of
``xbuild inspect``. What it means for this host is decided elsewhere.
"""

from __future__ import annotations

import os
import stat

from xbuild.binary.arch import ARCHES, UNEMULATED, arch_named
from xbuild.binary.elf import SNIFF_BYTES, read_program
from xbuild.errors import (
    DamagedElf,
    NotARootfs,
    TargetError,
    TargetNotFound,
    UnknownArchitecture,
)
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.tree.census import PROGRAM_DIRECTORIES, Census, take_sample
from xbuild.tree.resolve import DirectoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.binary.arch import Arch
    from xbuild.tree.distribution import Distribution
    from xbuild.tree.resolve import TreeReader

    Kind = Literal["directory", "archive", "program", "image"]

SAMPLE = 256  # headers, for a person who asked
SAMPLE_AT_START = 16  # headers, at each start of a container

SHELLS = (GuestPath("/bin/bash"), GuestPath("/bin/sh"))
# What speaks for the tree where there is no /bin/sh: Android's, a system's and an initramfs's init.
_LEADERS = tuple(GuestPath(p) for p in ("/bin/sh", "/system/bin/sh", "/sbin/init", "/init"))
_LIBC_BY_LOADER = (
    ("ld-musl", "musl"),
    ("uClibc", "uclibc"),
    ("klibc", "klibc"),
    ("linker", "bionic"),
    ("ld-linux", "glibc"),
    ("ld-2.", "glibc"),
    ("ld.so.1", "glibc"),
    ("ld64.so.", "glibc"),
)

_LISTING_LIMIT = 1024  # names
_NO_PROGRAM = "{} is not a root filesystem: no program of any architecture was found in it"
_LOOK_EVERYWHERE = (
    f"looked in {', '.join(PROGRAM_DIRECTORIES)}; xbuild inspect --full looks everywhere"
)


class Survey(Record):
    """What a target is.

    ``arch`` leads: that of /bin/sh, else of the loader, else of most programs. ``architectures``
    has all that were met in programs and loaders, the leading one first; ``programs`` counts
    programs by architecture, most first, of all the tree only where ``complete``. ``loader`` is
    the one that the leading program names, None in a tree of static programs; ``loaders`` are those
    that are there, by architecture. ``shell`` is /bin/bash or
    /bin/sh where it is there. ``owner`` and ``owner_gid`` are those of the root directory, -1 for
    what is no directory. Architectures go by xbuild's names.
    """

    target: HostPath
    kind: Kind
    arch: Arch | None
    programs: tuple[tuple[str, int], ...]
    complete: bool
    libc: str | None
    loader: GuestPath | None
    shell: GuestPath | None
    distribution: Distribution | None
    leading_program: GuestPath | None
    is_merged_usr: bool
    owner: int = -1
    owner_gid: int = -1
    architectures: tuple[str, ...] = ()
    loaders: tuple[tuple[str, GuestPath], ...] = ()
    is_loader_missing: bool = False


def survey_at_start(reader: DirectoryReader, places: tuple[GuestPath, ...] = ()) -> Survey:
    """Survey a tree as far as running it needs, and quickly: its ``distribution`` is not read.

    The first program at one of ``places``, where a command is looked for, counts in any case.
    Raises as survey_directory() does.
    """
    census = Census()
    take_sample(reader, census, SAMPLE_AT_START)
    for place in places:
        found = _identify(reader, census, place)
        if found is not None:
            census.meet(*found)
            break
    root = os.fstat(reader.fd)
    return _describe(reader, census, "directory", owner=root.st_uid, owner_gid=root.st_gid)


def survey_directory(
    reader: DirectoryReader, *, full: bool = False, sample: int = SAMPLE
) -> Survey:
    """Survey a tree, at a cost that depends on ``sample`` alone and not on the tree's size.

    ``full`` counts every program instead. Raises NotARootfs, UnknownArchitecture, TargetError.
    """
    census = Census()
    if full:
        from xbuild.tree.walk import count_programs

        count_programs(reader, census)
    else:
        take_sample(reader, census, sample)
    root = os.fstat(reader.fd)
    return describe_tree(reader, census, "directory", owner=root.st_uid, owner_gid=root.st_gid)


def describe_tree(
    reader: TreeReader, census: Census, kind: Kind, *, owner: int = -1, owner_gid: int = -1
) -> Survey:
    """Put together what a census counted and what the tree's well-known places say.

    Raises NotARootfs, UnknownArchitecture, TargetError when no program speaks for the tree.
    """
    from xbuild.tree.distribution import read_distribution  # off the start path

    found = _describe(reader, census, kind, owner=owner, owner_gid=owner_gid)
    return replace(found, distribution=read_distribution(reader))


def _describe(
    reader: TreeReader, census: Census, kind: Kind, *, owner: int, owner_gid: int
) -> Survey:
    loaders = find_loaders(reader, census)
    leading = _leading(reader, census, loaders)
    if leading is None:
        raise _explain_nothing(reader, census)
    arch, program = leading
    loader = _interpreter(reader, program) or loaders.get(arch.name)
    counts = sorted(census.counts.items(), key=lambda pair: (-pair[1], pair[0]))
    names = (arch.name, *(name for name, _ in counts), *loaders)
    return Survey(
        target=HostPath(reader.label),
        kind=kind,
        arch=arch,
        programs=tuple(counts),
        complete=census.is_complete,
        libc=None if loader is None else libc_of(loader, _resolved(reader, loader)),
        loader=loader,
        shell=_shell(reader),
        distribution=None,
        leading_program=program,
        is_merged_usr=_resolved(reader, GuestPath("/bin")) == "/usr/bin",
        owner=owner,
        owner_gid=owner_gid,
        architectures=tuple(dict.fromkeys(names)),
        loaders=tuple(loaders.items()),
        is_loader_missing=loader is not None and _resolved(reader, loader) is None,
    )


def libc_of(loader: str, resolved: str | None = None) -> str | None:
    """Return the C library that a dynamic loader belongs to, by its name and its real name.

    The real name goes first: uClibc is found behind /lib/ld.so.1 as well.
    """
    for path in (resolved or loader, loader):
        name = path.rpartition("/")[2]
        for mark, libc in _LIBC_BY_LOADER:
            if mark in name:
                return libc
    return None


def find_loaders(reader: TreeReader, census: Census) -> dict[str, GuestPath]:
    """Return a dynamic loader for each architecture that has one at a place programs name."""
    wanted: dict[str, list[str]] = {}
    for arch in ARCHES + UNEMULATED:
        for loader in arch.loaders:
            directory, _, name = loader.rpartition("/")
            wanted.setdefault(directory, []).append(name)
    found: dict[str, GuestPath] = {}
    for directory, names in wanted.items():
        _note_loaders(reader, directory, tuple(dict.fromkeys(names)), census, found)
    if not found and not census.counts:
        for directory in _library_directories(reader):
            _note_loaders(reader, directory, _loader_names(reader, directory), census, found)
    return found


def _note_loaders(
    reader: TreeReader,
    directory: str,
    names: tuple[str, ...],
    census: Census,
    found: dict[str, GuestPath],
) -> None:
    for name in reader.present(GuestPath(directory), names):
        path = GuestPath(f"{directory}/{name}")
        identified = _identify(reader, census, path)
        if identified is not None:
            found.setdefault(identified[0].name, path)


def _library_directories(reader: TreeReader) -> list[str]:
    """Return where libraries are in a tree that has nothing else: a sysroot, an unpacked libc."""
    above = ("/usr/lib", "/lib", "/usr/lib64", "/lib64", "/usr/lib32", "/lib32")
    triplets = []
    for directory in above[:2]:
        names = _listed(reader, GuestPath(directory))
        triplets += [f"{directory}/{name}" for name in names if name.count("-") >= 2]
    return [*above, *triplets[:_LISTING_LIMIT]]


def _loader_names(reader: TreeReader, directory: str) -> tuple[str, ...]:
    names = _listed(reader, GuestPath(directory))
    return tuple(name for name in names if name.startswith("ld") and ".so" in name)


def _listed(reader: TreeReader, directory: GuestPath) -> tuple[str, ...]:
    try:
        return reader.listdir(directory, _LISTING_LIMIT)
    except TargetError:
        return ()


def _leading(
    reader: TreeReader, census: Census, loaders: dict[str, GuestPath]
) -> tuple[Arch, GuestPath] | None:
    shell = _identify(reader, census, GuestPath("/bin/sh"))
    if shell is not None:
        return shell
    name = max(loaders, key=lambda arch: census.counts.get(arch, 0), default=census.most_common())
    if name is None:
        return None
    for path in _LEADERS:
        leader = _identify(reader, census, path)
        if leader is not None and leader[0].name == name:
            return leader
    return census.examples.get(name) or (arch_named(name), loaders[name])


def _identify(reader: TreeReader, census: Census, path: GuestPath) -> tuple[Arch, GuestPath] | None:
    """Return a program's architecture and resolved path; None for what is no readable program."""
    try:
        resolved, header = reader.look(path, SNIFF_BYTES)
    except TargetNotFound:
        return None
    except TargetError as error:
        census.note_unreadable(error)
        return None
    arch = census.identify(header)
    return None if arch is None else (arch, resolved)


def _interpreter(reader: TreeReader, program: GuestPath) -> GuestPath | None:
    """Return the PT_INTERP of a program; None where it has none or its headers are damaged."""
    try:
        with reader.open(program) as file:
            return read_program(file).interpreter
    except (TargetError, DamagedElf, OSError):
        return None


def _resolved(reader: TreeReader, path: GuestPath) -> GuestPath | None:
    try:
        return reader.resolve(path)
    except TargetError:
        return None


def _shell(reader: TreeReader) -> GuestPath | None:
    for path in SHELLS:
        try:
            entry = reader.lookup(path)
        except TargetError:
            continue
        if entry is not None and stat.S_ISREG(entry.mode):
            return path
    return None


def _explain_nothing(reader: TreeReader, census: Census) -> TargetError | UnknownArchitecture:
    """Return the error for a tree in which nothing told an architecture."""
    label = reader.label
    if census.unknown_machine is not None:
        return UnknownArchitecture(
            f"The programs of {label} are for ELF machine {census.unknown_machine}, "
            "which xbuild does not know"
        )
    if census.unreadable is not None:
        return census.unreadable
    names = _listed(reader, GuestPath("/"))
    if not names:
        return NotARootfs(f"{label} is empty", "unpack a root filesystem into it first")
    for name in names:
        below = GuestPath(f"/{name}")
        if _resolved(reader, below) == below and {"bin", "usr"} & set(_listed(reader, below)):
            return NotARootfs(_NO_PROGRAM.format(label), f"did you mean {label}/{name}?")
    return NotARootfs(_NO_PROGRAM.format(label), _LOOK_EVERYWHERE if not census.is_complete else "")
