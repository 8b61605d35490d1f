"""A target that may be anything: a directory, an archive of a tree or a program, by its content.

Off the start path, where a target is a directory.
"""

from __future__ import annotations

import os
import shlex
import stat
from typing import BinaryIO

from xbuild.binary.arch import Arch, arch_of
from xbuild.binary.elf import ELFMAG, ET_CORE, ET_REL, Program, read_program
from xbuild.errors import DamagedElf, NotARootfs, UnknownArchitecture, UnknownFormat
from xbuild.record import GuestPath, HostPath
from xbuild.tree.archive import ArchiveReader
from xbuild.tree.census import Census
from xbuild.tree.looks import LOOKS_BYTES, looks_like
from xbuild.tree.members import is_archive
from xbuild.tree.path_walk import kind_of
from xbuild.tree.resolve import READ_FLAGS, DirectoryReader, TreeReader, target_error
from xbuild.tree.survey import SAMPLE, Survey, describe_tree, libc_of, survey_directory

_NO_PROGRAMS = {ET_REL: "an object file, not linked yet", ET_CORE: "a core dump"}


class ProgramReader(TreeReader):
    """A single program as the only file there is, under its path on this host."""

    def __init__(self, path: HostPath) -> None:
        self.label = path

    def open(self, path: GuestPath) -> BinaryIO:
        """Open the program: see TreeReader."""
        return _open(HostPath(path))


def survey(target: HostPath, *, full: bool = False, sample: int = SAMPLE) -> Survey:
    """Look at a directory, an archive of a tree or a single program, whichever ``target`` is.

    Raises TargetNotFound, NotARootfs, DamagedArchive, UnknownFormat, DamagedElf,
    UnknownArchitecture, and TargetError for what cannot be read.
    """
    with open_target(target) as reader:
        return survey_target(reader, full=full, sample=sample)


def open_target(target: HostPath) -> TreeReader:
    """Open a directory, an archive (which is read at once) or a program.

    Raises TargetNotFound, DamagedArchive, UnknownFormat, which says what the target looks like,
    and TargetError.
    """
    try:
        mode = os.stat(target).st_mode
    except (OSError, ValueError) as error:
        raise target_error(target, error) from error
    if stat.S_ISDIR(mode):
        return DirectoryReader(target)
    if not stat.S_ISREG(mode):
        hint = "name a directory, an archive or a program"
        if stat.S_ISBLK(mode):
            hint = "mount it and name the mount point"
        raise UnknownFormat(f"{target} is {kind_of(mode)}, not a tree or a program", hint)
    header = _beginning(target)
    if header[: len(ELFMAG)] == ELFMAG:
        return ProgramReader(target)
    if is_archive(header):
        return ArchiveReader(target)
    name, hint = looks_like(header)
    raise UnknownFormat(f"{target} is {name}, not a tree, an archive or a program", hint)


def no_tree(path: HostPath) -> NotARootfs:
    """Return why nothing can be run in a file that is no disk image, saying what it looks like.

    Raises TargetError for one that cannot be read.
    """
    header = _beginning(path)
    if not header:
        return NotARootfs(
            f"{path} is an empty file, not a tree or a disk image", "fetch or make it again"
        )
    if is_archive(header):
        return NotARootfs(
            f"{path} is an archive: nothing can be run in it as it is",
            f"unpack it first: mkdir TREE && tar -C TREE -xf {shlex.quote(path)}",
        )
    if header.startswith(ELFMAG):
        hint = f"name a tree for it: xbuild run TREE -- {shlex.quote(path)}"
        return NotARootfs(f"{path} is a program, not a tree or a disk image", hint)
    name, hint = looks_like(header)
    return NotARootfs(f"{path} is {name}, not a tree or a disk image", hint)


def survey_target(reader: TreeReader, *, full: bool = False, sample: int = SAMPLE) -> Survey:
    """Survey what open_target() opened. Raises as the survey of its kind does."""
    match reader:
        case DirectoryReader():
            return survey_directory(reader, full=full, sample=sample)
        case ArchiveReader():
            return survey_archive(reader)
        case _:
            return survey_program(HostPath(reader.label))


def survey_program(path: HostPath) -> Survey:
    """Survey a single program or shared library.

    Raises DamagedElf, UnknownArchitecture, UnknownFormat for core dumps and objects, TargetError.
    """
    program = _read_program(path)
    arch = arch_of(program.ident)
    if program.ident.type in _NO_PROGRAMS:
        owner = f" of {arch.common_name}" if arch else ""
        raise UnknownFormat(
            f"{path} is {_NO_PROGRAMS[program.ident.type]}{owner}, not a program",
            "name a program or a shared library, linked",
        )
    if arch is None:
        ident = program.ident
        raise UnknownArchitecture(
            f"{path} is for ELF machine {ident.machine} ({ident.bits}-bit {ident.order}-endian), "
            "which xbuild does not know"
        )
    return _describe_program(path, arch, program)


def survey_archive(reader: ArchiveReader) -> Survey:
    """Survey what an archive's one pass kept. Raises NotARootfs, UnknownArchitecture."""
    census = Census()
    for path, header in reader.programs():
        census.add(header, path)
    census.is_complete = reader.is_complete
    return describe_tree(reader, census, "archive")


def _read_program(path: HostPath) -> Program:
    with _open(path) as file:
        try:
            program = read_program(file)
            size = file.seek(0, os.SEEK_END)
        except DamagedElf as error:
            raise DamagedElf(f"{path} is no whole program: {error.message}") from error
        except OSError as error:
            raise target_error(path, error) from error
    if program.end_bytes > size:
        raise DamagedElf(f"{path} is cut off: it has {size} of at least {program.end_bytes} bytes")
    return program


def _describe_program(path: HostPath, arch: Arch, program: Program) -> Survey:
    loader = program.interpreter
    return Survey(
        target=path,
        kind="program",
        arch=arch,
        programs=((arch.name, 1),),
        complete=True,
        libc=libc_of(loader) if loader is not None else None,
        loader=loader,
        shell=None,
        distribution=None,
        leading_program=GuestPath(path),
        is_merged_usr=False,
        architectures=(arch.name,),
    )


def _beginning(path: HostPath) -> bytes:
    with _open(path) as file:
        try:
            return file.read(LOOKS_BYTES)
        except OSError as error:
            raise target_error(path, error) from error


def _open(path: HostPath) -> BinaryIO:
    """Open a file that was regular a moment ago; a FIFO in its place does not make it wait."""
    try:
        return os.fdopen(os.open(path, READ_FLAGS & ~os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise target_error(path, error) from error
