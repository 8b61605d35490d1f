"""Native programs from a directory that somebody names: a cross chroot, a crossdev host's root.

There is no package database to ask on both sides, so a program is the tree's own by where it is
and by what it says: GCC by its configuration and its drivers' commands, binutils by their version.
All else is left to the corpus.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat

from xbuild.binary.arch import Arch, arch_named
from xbuild.binary.elf import SNIFF_BYTES, sniff
from xbuild.errors import ProviderUnsuitable, TargetError, ToolRefused
from xbuild.native.fetch import Wanted
from xbuild.native.gate import check_configuration
from xbuild.native.gcc import configuration
from xbuild.native.origin import Supply
from xbuild.native.programs import Program, file_digest
from xbuild.native.roles import Role, role_of_binutils, role_of_compiler
from xbuild.record import GuestPath, HostPath
from xbuild.source.apt import Progress
from xbuild.tree.resolve import DirectoryReader

_PACKAGE = "provider"
_LISTING_LIMIT = 10_000  # names in a directory
_LIMIT = 512 << 20  # bytes of a program
_POISONED = "--enable-poison-system-directories"  # toolchain.eclass has it for cross compilers
_HINT = "crossdev, or a chroot with the distribution's cross compiler, makes one"
_WITHOUT = 'EXTRA_ECONF="--disable-poison-system-directories"'
_HINT_OF_POISON = f"crossdev makes one that is not, with --genv '{_WITHOUT}'"
_GCC_TOPS = ("usr/libexec/gcc", "usr/lib/gcc", "usr/lib64/gcc")


class DirectoryOrigin:
    """The root directory ``provider``; it is read and not changed."""

    def __init__(self, provider: HostPath, fingerprint: str) -> None:
        self._provider = provider
        self._fingerprint = fingerprint

    @property
    def name(self) -> str:
        """Name the directory."""
        return f"programs of {self._provider}"

    @property
    def key(self) -> str:
        """Name the directory and the state of its programs."""
        return f"directory {self._provider} {self._fingerprint}"

    def supply(
        self,
        programs: tuple[Program, ...],  # noqa: ARG002 - as Origin has it
        cache: HostPath,  # noqa: ARG002
        work: HostPath,  # noqa: ARG002
        progress: Progress,
    ) -> Supply:
        """Return the directory itself."""
        progress(f"taking programs of {self._provider}", None)
        return Supply(self._provider, False, {_PACKAGE: self._fingerprint}, {})


def open_provider(
    reader: DirectoryReader, arch: Arch, provider: HostPath, machine: str
) -> tuple[DirectoryOrigin, tuple[Program, ...], str]:
    """Return the origin, the tree's programs that it may have, and GCC's name of the target.

    ``machine`` is the host's name. Raises ProviderUnsuitable where the tree has no GCC, or the
    directory none that is the tree's own but for where it runs.
    """
    compilers = _compilers(reader, arch)
    if not compilers:
        raise ProviderUnsuitable(f"{reader.label} has no GCC below {', '.join(_GCC_TOPS)}")
    triplet, version = compilers[0][1], compilers[0][2]
    programs = [*_gcc_programs(reader, arch, compilers), *_tools(reader, arch, triplet, version)]
    _check_compilers(reader, provider, machine, [p for p in programs if p.path.endswith("/cc1")])
    present = [
        os.path.join(provider, path)
        for program in programs
        for path in program.natives
        if os.path.isfile(os.path.join(provider, path))
    ]
    identity = [f"{path} {_identity(path)}" for path in sorted(present)]
    return DirectoryOrigin(provider, _digest(identity)), tuple(programs), triplet


def _check_compilers(
    reader: DirectoryReader, provider: HostPath, machine: str, wanted: list[Program]
) -> None:
    """Raise ProviderUnsuitable unless the directory has one of the C compilers ``wanted``."""
    reasons = []
    for program in wanted:
        found = [p for p in program.natives if os.path.isfile(os.path.join(provider, p))]
        if not found:
            continue
        native = os.path.join(provider, found[0])
        with open(native, "rb") as file:
            content = file.read()
        ident = sniff(content[:SNIFF_BYTES])
        if ident is None or not arch_named(machine).admits(ident):
            reasons.append(f"{native} is no program of this host ({machine})")
            continue
        ours, theirs = configuration(reader.read(program.path, _LIMIT)), configuration(content)
        if not ours or not theirs:  # no package says in its place what it was built from
            silent = reader.label if not ours else provider
            reasons.append(f"the cc1 of {silent} does not tell what it was configured with")
            continue
        try:
            check_configuration(ours, theirs)
        except ToolRefused as error:
            reasons.append(f"{native} is {error.message}")
            continue
        return
    targets = ", ".join(f"GCC {version} for {target}" for target, version in _offered(provider))
    versions = " or ".join(f"GCC {program.gcc} for {_target(program)}" for program in wanted)
    raise ProviderUnsuitable(
        "; ".join(reasons)
        or f"{provider} has no {versions}" + (f", but {targets}" if targets else ""),
        _HINT if not any(_POISONED in reason for reason in reasons) else _HINT_OF_POISON,
    )


def _target(program: Program) -> str:
    return os.path.basename(os.path.dirname(os.path.dirname(program.path)))


def _offered(provider: HostPath) -> list[tuple[str, str]]:
    """Return (target, version) of each GCC of the directory, for people."""
    tops = (*_GCC_TOPS, *(top.replace("/gcc", "/gcc-cross") for top in _GCC_TOPS))
    pattern = "/*/*/cc1"
    places = (path for top in tops for path in glob.glob(f"{glob.escape(provider)}/{top}{pattern}"))
    return sorted({(parts[-3], parts[-2]) for parts in (path.split("/") for path in places)})


def _compilers(reader: DirectoryReader, arch: Arch) -> list[tuple[str, str, str]]:
    """Return (directory, triplet, version) of each GCC that has a cc1 of the architecture."""
    found = []
    for top in _GCC_TOPS:
        for triplet in _names(reader, f"/{top}"):
            for version in _names(reader, f"/{top}/{triplet}"):
                directory = f"/{top}/{triplet}/{version}"
                if _is_program(reader, arch, GuestPath(f"{directory}/cc1")):
                    found.append((directory, triplet, version))
    return found


def _gcc_programs(
    reader: DirectoryReader, arch: Arch, compilers: list[tuple[str, str, str]]
) -> list[Program]:
    found = []
    for directory, triplet, version in compilers:
        natives = [f"{top}/{triplet}/{version}" for top in _GCC_TOPS]
        natives += [top.replace("/gcc/", "/gcc-cross/") for top in natives]
        for name in _names(reader, directory):
            role = role_of_compiler(name)
            path = GuestPath(f"{directory}/{name}")
            if role is not None and _is_program(reader, arch, path):
                found.append(
                    Program(
                        reader.resolve(path),
                        file_digest(reader, path),
                        role,
                        Wanted(_PACKAGE, version),
                        tuple(f"{place}/{name}" for place in natives),
                        version,
                    )
                )
    return found


def _tools(reader: DirectoryReader, arch: Arch, triplet: str, version: str) -> list[Program]:
    """Return drivers and binutils that are on PATH or below the target's own directories."""
    found: dict[GuestPath, Program] = {}
    places = ["/usr/bin", "/bin", f"/usr/{triplet}/bin"]
    for directory in ("binutils-bin", "gcc-bin"):
        above = f"/usr/{triplet}/{directory}"
        places += [f"{above}/{name}" for name in _names(reader, above)]
    for place in places:
        for name in _names(reader, place):
            if _role(name.removeprefix(f"{triplet}-")) is None:
                continue
            path = GuestPath(f"{place}/{name}")
            if not _is_program(reader, arch, path):
                continue
            real = reader.resolve(path)
            base = os.path.basename(real).removeprefix(f"{triplet}-")
            role = _role(base)
            if real in found or role is None:
                continue
            within = os.path.dirname(real).lstrip("/")
            # Gentoo's cross tools: /usr/HOST/TARGET/binutils-bin/VERSION and gcc-bin/VERSION.
            cross = within.replace(f"usr/{triplet}/", f"usr/x86_64-pc-linux-gnu/{triplet}/")
            natives = tuple(
                f"{directory}/{prefix}{base}"
                for directory in ("usr/bin", within, cross)
                for prefix in (f"{triplet}-", "")
                if prefix or directory == cross != within
            )
            gcc = version if role.kind == "driver" else ""
            digest = file_digest(reader, real)
            found[real] = Program(real, digest, role, Wanted(_PACKAGE, version), natives, gcc)
    return [found[path] for path in sorted(found)]


def _role(base: str) -> Role | None:
    role = role_of_compiler(base)
    return role if role is not None and role.kind == "driver" else role_of_binutils(base)


def _names(reader: DirectoryReader, directory: str) -> tuple[str, ...]:
    try:
        return reader.listdir(GuestPath(directory), _LISTING_LIMIT)
    except TargetError:
        return ()


def _is_program(reader: DirectoryReader, arch: Arch, path: GuestPath) -> bool:
    try:
        entry = reader.lookup(path)
        if entry is None or not stat.S_ISREG(entry.mode) or not entry.mode & 0o111:
            return False
        ident = sniff(reader.read(entry.path, SNIFF_BYTES))
    except TargetError:
        return False
    return ident is not None and arch.admits(ident)


def _identity(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
