"""Make a set of native tools for a tree: find, fetch, relocate, compare, prove, publish.

A set appears in the cache by one rename, with its verdicts; what is interrupted leaves a directory
that no reader looks at and the next one removes.
"""

from __future__ import annotations

import hashlib
import os
import shutil

from xbuild.binary.arch import Arch, arch_named
from xbuild.errors import ProviderError, ToolsetDamaged, XbuildError
from xbuild.native.assemble import Assembled, Assembler, list_files, lower
from xbuild.native.c_types import types_for
from xbuild.native.companions import Companions
from xbuild.native.corpus import corpus_version, prove
from xbuild.native.fetch import DEBIAN_MACHINES, MULTIARCH
from xbuild.native.gate import compare_answers, read_specs
from xbuild.native.inquiry import ask
from xbuild.native.installed import read_database
from xbuild.native.origin import Origin, origin_of
from xbuild.native.programs import Program, file_digest, find_programs
from xbuild.native.relocate import Layout
from xbuild.native.sets import find_by_recipe, publish, unfinished_set
from xbuild.record import HostPath, Record, replace
from xbuild.source.apt import Progress
from xbuild.source.cache import locked
from xbuild.toolset.integrity import check_toolset
from xbuild.toolset.manifest import (
    ROOT,
    Companion,
    Tool,
    Toolset,
    native_directory,
    write_manifest,
)
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import Survey, survey_directory

FORMAT = "4"  # part of the recipe: raise it when the same packages make another set
_WITH_COMPANIONS = frozenset(("compiler", "assembler", "linker", "binutils", "archiver"))


class Prepared(Record):
    """The set for a tree; ``is_new`` where it was made now and was not in the cache."""

    toolset: Toolset
    is_new: bool


def prepare(
    target: HostPath, *, provider: HostPath | None = None, again: bool = False, progress: Progress
) -> Prepared:
    """Return the set of native tools for the tree ``target``, made where there is none.

    From packages of the tree's distribution, or from the tree of native programs ``provider``;
    ``again`` makes and proves it anew. The tree is not written to. Raises ProviderError,
    SourceError, CorpusFailed and what a run of the tree raises.
    """
    if os.path.isfile(target):
        raise ProviderError(
            f"Native tools are prepared for a directory: {target} is a file",
            _hint_for_image(target),
        )
    with DirectoryReader(target) as reader:
        survey = survey_directory(reader)
        subject = _subject(reader, survey, provider)
        directory = native_directory()
        if directory is None:
            raise ProviderError("No place for native tools: HOME is not set", "set XDG_CACHE_HOME")
        # What is published is whole: who needs nothing new does not wait for who makes another.
        known = None if again else _known(directory, subject.recipe, _silent)
        if known is not None:
            return Prepared(known, is_new=False)
        with _explaining_full_disk(directory), locked(directory, progress):
            known = None if again else _known(directory, subject.recipe, progress)
            if known is not None:
                return Prepared(known, is_new=False)
            return Prepared(_make(reader, subject, directory, progress), is_new=True)


def _hint_for_image(image: HostPath) -> str:
    return (
        "a set serves an image with the same programs; prepare one for a copy of it:\n"
        f"xbuild run --read-only {image} -- tar -C / --one-file-system -c . >copy.tar\n"
        "xbuild create copy --from copy.tar, then xbuild native prepare copy"
    )


class _Subject(Record):
    """What a set is made for and from; ``recipe`` names all of it that decides what comes out."""

    target: HostPath
    arch: Arch
    machine: str
    triplet: str
    origin: Origin
    programs: tuple[Program, ...]
    recipe: str


def _subject(reader: DirectoryReader, survey: Survey, provider: HostPath | None) -> _Subject:
    arch, machine = survey.arch, arch_named(os.uname().machine).name
    assert arch is not None
    origin: Origin
    if arch.name == machine:
        raise ProviderError(f"{reader.label} is of this host's own architecture: nothing to do")
    if machine not in DEBIAN_MACHINES:
        raise ProviderError(f"Native tools are not known for hosts of {machine}")
    if provider is None and survey.distribution is not None and survey.distribution.id == "gentoo":
        provider = HostPath("/")  # where crossdev puts its toolchains
    if provider is not None:
        from xbuild.native.provider import open_provider

        origin, programs, triplet = open_provider(reader, arch, provider, machine)
    else:
        database = read_database(reader)
        if database is None:
            raise ProviderError(
                f"Cannot tell which packages {reader.label} is made of: it has no dpkg database",
                "name a tree of matching native tools: xbuild native prepare --provider DIR TARGET",
            )
        programs = find_programs(reader, database, arch, machine)
        triplet = MULTIARCH.get(database.architecture, "")
        origin = origin_of(reader, survey.distribution, DEBIAN_MACHINES[machine])
    if not programs:
        raise ProviderError(
            f"{reader.label} has no program that a native one could stand in for",
            "its compilers may not be of the distribution: --provider DIR names native ones",
        )
    recipe = _recipe(arch, machine, origin, programs)
    return _Subject(HostPath(reader.label), arch, machine, triplet, origin, programs, recipe)


def _recipe(arch: Arch, machine: str, origin: Origin, programs: tuple[Program, ...]) -> str:
    lines = [FORMAT, arch.name, machine, origin.key]
    lines += [f"{p.path} {p.sha256} {p.wanted.name} {p.wanted.revision}" for p in programs]
    also = {f"{each.name} {each.revision}" for p in programs for each in p.also}
    lines += sorted(also)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _known(directory: HostPath, recipe: str, progress: Progress) -> Toolset | None:
    toolset = find_by_recipe(directory, recipe)
    return toolset if toolset is not None and _is_sound(toolset, progress) else None


def _silent(_text: str, _fraction: float | None) -> None:
    """Leave the words to who makes a set."""


def _is_sound(toolset: Toolset, progress: Progress) -> bool:
    """Tell whether a set of the cache can be used as it is: whole, and proven as now is usual."""
    if toolset.corpus != corpus_version():
        return False
    try:
        check_toolset(toolset, remember=True)
    except ToolsetDamaged as error:
        progress(f"{error.message}: making it anew", None)
        return False
    return True


def _make(
    reader: DirectoryReader, subject: _Subject, directory: HostPath, progress: Progress
) -> Toolset:
    with unfinished_set(directory) as (work, place):
        root = HostPath(f"{place}/{ROOT}")
        os.mkdir(root, 0o755)
        supply = subject.origin.supply(subject.programs, directory, work, progress)
        progress("relocating", None)
        layout = Layout(supply.unpacked, root, subject.machine)
        assembler = Assembler(
            reader,
            layout,
            subject.triplet,
            lambda drivers: read_specs(subject.target, root, drivers),
            lambda questions: ask(subject.target, questions),
            types=types_for(subject.machine, subject.arch.name),
        )
        assembled = assembler.assemble(subject.programs, supply.versions, supply.refused)
        for path in supply.frontends:
            if layout.has(path):
                layout.add_program(path)
        shutil.rmtree(supply.unpacked if supply.is_scratch else work, ignore_errors=True)
        progress("comparing with the tree's own", None)
        tools = _compared(subject, root, assembled)
        toolset = _toolset(reader, subject, assembled, tools, root, place)
        proven = prove(subject.target, toolset, progress=progress)
        write_manifest(proven, place)
        return publish(directory, place, proven, subject.recipe)


def _compared(subject: _Subject, root: HostPath, assembled: Assembled) -> tuple[Tool, ...]:
    """Lower what answers otherwise than the tree's own program."""
    answers = compare_answers(subject.target, root, assembled.tools, subject.triplet)
    different = {answer.path: answer.difference for answer in answers if answer.difference}
    return tuple(
        lower(tool, different[tool.path]) if tool.path in different else tool
        for tool in assembled.tools
    )


def _toolset(
    reader: DirectoryReader,
    subject: _Subject,
    assembled: Assembled,
    tools: tuple[Tool, ...],
    root: HostPath,
    place: HostPath,
) -> Toolset:
    finder = Companions(reader, subject.triplet)
    needs = {
        tool.path: finder.of(tool.path)
        for tool in tools
        if tool.native and tool.kind in _WITH_COMPANIONS
    }
    companions = sorted({path for paths in needs.values() for path in paths})
    return write_manifest(
        Toolset(
            architecture=subject.arch.name,
            machine=subject.machine,
            provider=subject.origin.name,
            compilers=assembled.compilers,
            tools=tuple(replace(tool, needs=needs.get(tool.path, ())) for tool in tools),
            files=list_files(root),
            companions=tuple(Companion(path, file_digest(reader, path)) for path in companions),
        ),
        place,
    )


class _explaining_full_disk:  # noqa: N801 - used as a statement
    """Turn an OSError of the cache's disk into words; what was begun is removed by then."""

    def __init__(self, directory: HostPath) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, XbuildError):
            raise ProviderError(
                f"Cannot fill the cache of native tools {self._directory}: {error.strerror}",
                "make room there, or name another place with XDG_CACHE_HOME",
            ) from error
