"""The proof: a corpus run by the tree's own programs and by native ones, output compared by byte.

``prove`` runs it twice in containers, emulated and with the native programs in place of the
tree's, and gives each program of a set its verdict. Which cases there are is said in
``corpus_compilers``, ``corpus_binutils`` and ``corpus_utilities``; where a set is kept is not
known here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable

from xbuild.errors import CorpusFailed
from xbuild.native.corpus_binutils import GCC_WRAPPERS, binutils_cases, link_cases
from xbuild.native.corpus_case import STAGES, Case
from xbuild.native.corpus_compare import Outcome, compare
from xbuild.native.corpus_compilers import compiler_cases, driver_cases, lto_cases
from xbuild.native.corpus_languages import language_cases
from xbuild.native.corpus_utilities import utility_cases
from xbuild.plan.make import plan_run
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.sandbox.container import Container
from xbuild.toolset.manifest import Tool, Toolset, native_directory, write_manifest
from xbuild.toolset.match import Match, match_candidates
from xbuild.tree.resolve import DirectoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.toolset.manifest import Level

FORMAT = 1
_PLACE = "/run/xbuild-corpus"
_HERE = os.path.dirname(os.path.abspath(__file__))
_SOURCES = os.path.join(_HERE, "corpus_sources")
_MODULES = ("compilers", "binutils", "utilities", "languages", "compare", "case")
_MTIME = 1_700_000_000
_OF_GCC = re.compile(r"/gcc/(?P<triplet>[^/]+)/(?P<version>[^/]+)/[^/]+$")
_OF_LLVM = re.compile(r"/llvm-(?P<version>[^/]+)/bin/(?P<name>[^/]+)$")
_OF_GO = re.compile(r"/go-[^/]+/pkg/tool/[^/]+/(?P<name>[^/]+)$")
_STRICT = frozenset(("compiler", "assembler", "linker", "binutils"))


class Subject(Record):
    """A tool under test: the ``key`` of its cases, and its ``base`` name without decoration."""

    tool: Tool
    key: str
    base: str


def corpus_version() -> str:
    """Return a name for what the corpus proves: it changes with its sources and command lines."""
    digest = hashlib.sha256(str(FORMAT).encode())
    names = [os.path.join(_SOURCES, name) for name in sorted(os.listdir(_SOURCES))]
    names += [os.path.join(_HERE, f"corpus_{module}.py") for module in _MODULES]
    for path in (*names, os.path.join(_HERE, "corpus_prelude.sh")):
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:16]


def prove(
    tree: HostPath,
    toolset: Toolset,
    *,
    interpreter: HostPath | None = None,
    progress: Callable[[str, float | None], None],
) -> Toolset:
    """Return ``toolset`` with a verdict for each tool that has a native program.

    ``toolset`` was read from where its manifest and files are; the tree is not written to. A tool
    keeps its level when every case agrees by byte and one at least succeeded; none is raised.
    Raises CorpusFailed when the corpus itself cannot run in the tree.
    """
    subjects = [_subject(tool) for tool in toolset.tools if tool.native]
    cases = tuple(corpus_cases(toolset.architecture, subjects, emulated=_emulated(toolset)))
    # By that name the next preparation removes what a killed one left.
    scratch = tempfile.mkdtemp(prefix="work-corpus-", dir=native_directory())
    try:
        place = _Place(HostPath(scratch), tree, interpreter)
        place.prepare()
        before = _look_at(tree, toolset)
        progress(f"{len(cases)} cases by the tree's own programs", None)
        place.run(cases, "reference", None)
        write_manifest(_judgeable(toolset, subjects, cases), toolset.directory)
        progress(f"{len(cases)} cases by native programs", None)
        place.run(cases, "out", toolset.directory)
        outcomes = compare(cases, f"{scratch}/reference", f"{scratch}/out")
        unseen = _unseen(before, _look_at(tree, toolset))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    judged = {
        each.tool.path: _judge(each, outcomes, unseen.get(each.tool.path, "")) for each in subjects
    }
    tools = tuple(judged.get(tool.path, tool) for tool in toolset.tools)
    return replace(toolset, tools=tools, corpus=corpus_version())


def _judgeable(toolset: Toolset, subjects: list[Subject], cases: tuple[Case, ...]) -> Toolset:
    """Leave out what no case judges and hence stays emulated: other programs start it."""
    tested = {name for case in cases for name in case.tools}
    untested = {
        each.tool.path for each in subjects if each.tool.kind in _STRICT and each.key not in tested
    }
    return replace(toolset, tools=tuple(t for t in toolset.tools if t.path not in untested))


def _look_at(tree: HostPath, toolset: Toolset) -> Match:
    with DirectoryReader(tree) as reader:
        return match_candidates(reader, toolset.directory)


def _unseen(before: Match, after: Match) -> dict[GuestPath, str]:
    """Return which programs no native one stood in for all the while, by path, and why.

    What a package manager replaces meanwhile ran emulated in both passes, and agrees with itself.
    """
    same = {use.tool.path for use in before.uses if use in after.uses}
    reasons = {left.tool.path: left.reason for left in before.left}
    return {
        tool.path: reasons.get(tool.path, "it changed while it was proven")
        for tool in after.toolset.tools
        if tool.native and tool.path not in same
    }


def _subject(tool: Tool) -> Subject:
    name = os.path.basename(tool.path)
    within = _OF_GCC.search(tool.path)
    if within is not None:
        return Subject(tool, f"{name}@{within['version']}", name)
    of_llvm, of_go = _OF_LLVM.search(tool.path), _OF_GO.search(tool.path)
    if of_llvm is not None:
        return Subject(tool, f"{name}-{of_llvm['version']}", name)
    if of_go is not None:
        return Subject(tool, f"go-{name}", f"go-{name}")
    # A triplet before it, as in aarch64-linux-gnu-as.
    base = re.sub(r"^[a-z0-9_]+-(?:[a-z0-9]+-)?linux-[a-z0-9_]+-", "", name)
    plain = re.sub(r"-[0-9.]+$", "", base)
    if plain in GCC_WRAPPERS:
        return Subject(tool, plain, plain)
    if tool.kind == "driver":
        return Subject(tool, base, plain)
    return Subject(tool, base, base)


def _emulated(toolset: Toolset) -> frozenset[tuple[str, str]]:
    """Return version and triplet of the C compilers that no native one stands in for."""
    found = [
        within
        for tool in toolset.tools
        if not tool.native and tool.path.endswith("/cc1")
        if (within := _OF_GCC.search(tool.path)) is not None
    ]
    return frozenset((within["version"], within["triplet"]) for within in found)


def corpus_cases(
    architecture: str,
    subjects: list[Subject],
    *,
    emulated: frozenset[tuple[str, str]] = frozenset(),
) -> Iterable[Case]:
    """Yield all cases for the tools of a set, each after those whose output it reads.

    ``emulated`` has version and triplet of C compilers that are not in the set, and yet make
    what its assembler reads.
    """
    paths = {each.key: str(each.tool.path) for each in subjects}
    bases = {each.base: str(each.tool.path) for each in subjects}
    versions: dict[tuple[str, str], set[str]] = {}
    for each in subjects:
        within = _OF_GCC.search(each.tool.path)
        if within is not None:
            versions.setdefault((within["version"], within["triplet"]), set()).add(each.base)
    for (version, triplet), has in sorted(versions.items()):
        yield from compiler_cases(version, triplet, architecture, frozenset(has))
        yield from link_cases(version, triplet, paths)
        if "lto1" in has:
            yield from lto_cases(version, triplet)
    if emulated and not versions:
        version, triplet = max(emulated)
        made = compiler_cases(version, triplet, architecture, frozenset(("cc1",)))
        yield from map(_compiled_once, made)
        yield from link_cases(version, triplet, paths)
        yield from binutils_cases(version, bases)
    if versions:
        yield from binutils_cases(max(versions)[0], bases)
    for each in subjects:
        yield from language_cases(each.key, each.tool.path, architecture)
        if each.tool.kind == "driver" and each.base not in GCC_WRAPPERS:
            yield from driver_cases(each.key, each.base, each.tool.path)
        else:
            yield from utility_cases(each.key, each.base, each.tool.path)


def _compiled_once(case: Case) -> Case:
    """Return a case of a compiler that is the tree's own in both passes: it need not run twice."""
    if not any(tool.startswith("cc1@") for tool in case.tools):
        return case
    once = f'[ -e "$R/{case.name}.plan" ] || {{\n{case.script}\n}}'
    return replace(case, tools=(), script=once)


def _judge(subject: Subject, outcomes: dict[str, Outcome], unseen: str) -> Tool:
    """Turn the outcomes of a tool's cases into its verdict and level, which is not raised.

    ``unseen`` says why its native program did not run, if so.
    """
    tool, outcome = subject.tool, outcomes.get(subject.key)
    if unseen:
        return replace(tool, verdict="untested", level="none", reason=unseen)
    is_strict = tool.kind in _STRICT
    if outcome is None or not (outcome.succeeded if is_strict else outcome.answered):
        reason = tool.reason or "the corpus has no case for it"
        level: Level = "none" if is_strict else _lower(tool)
        return replace(tool, verdict="untested", level=level, reason=reason)
    if not outcome.differences:
        return replace(tool, verdict="identical")
    level = _lower(tool) if outcome.is_nuance else "none"
    return replace(tool, verdict="differs", level=level, reason=outcome.reason)


def _lower(tool: Tool) -> Level:
    return "none" if tool.level == "none" else "fast"


class _Place:
    """A directory with sources and outputs, and the containers that see it."""

    def __init__(self, scratch: HostPath, tree: HostPath, interpreter: HostPath | None) -> None:
        self._scratch = scratch
        self._tree = tree
        self._interpreter = interpreter

    def prepare(self) -> None:
        """Copy the sources, with times that are the same everywhere."""
        sources = f"{self._scratch}/src"
        shutil.copytree(_SOURCES, sources)
        for name in os.listdir(sources):
            os.chmod(f"{sources}/{name}", 0o644)
            os.utime(f"{sources}/{name}", (_MTIME, _MTIME))
        os.chmod(sources, 0o755)
        os.utime(sources, (_MTIME, _MTIME))

    def run(self, cases: tuple[Case, ...], output: str, toolset: HostPath | None) -> None:
        """Run all cases in a container, with all of ``toolset``; they write to ``output``."""
        os.mkdir(f"{self._scratch}/{output}")
        os.chmod(f"{self._scratch}/{output}", 0o777)
        script = f"{self._scratch}/{output}.sh"
        with open(script, "w", encoding="utf-8") as file:
            file.write(_render(cases, os.cpu_count() or 1))
        shown = (
            BindRequest(
                HostPath(f"{self._scratch}/src"), GuestPath(f"{_PLACE}/src"), read_only=True
            ),
            BindRequest(HostPath(f"{self._scratch}/{output}"), GuestPath(f"{_PLACE}/out")),
            BindRequest(
                HostPath(f"{self._scratch}/reference"),
                GuestPath(f"{_PLACE}/reference"),
                read_only=output != "reference",
            ),
            BindRequest(HostPath(script), GuestPath(f"{_PLACE}/script"), read_only=True),
        )
        request = Request(
            self._tree,
            ("/bin/sh", f"{_PLACE}/script"),
            binds=shown,
            network="none",
            read_only=True,
            interpreter=self._interpreter,
            native="off" if toolset is None else "exact",
            toolset=toolset,
        )
        status = Container(plan_run(request, remember=True)).run()
        if status != 0:
            raise CorpusFailed(
                f"The corpus cannot run in {self._tree}: its shell ended with status {status}",
                f"does it run? xbuild run {self._tree} -- /bin/sh -c true",
            )


def _render(cases: tuple[Case, ...], jobs: int) -> str:
    """Return the script: one stage after the other, a stage's cases shared out to jobs."""
    with open(os.path.join(_HERE, "corpus_prelude.sh"), encoding="utf-8") as file:
        text = [file.read()]
    for stage in STAGES:
        now = [case for case in cases if case.stage == stage]
        for job in range(jobs):
            text.append("(")
            text += [f"{case.script}\n" for case in _share(now, job, jobs)]
            text.append(":\n) &")
        text.append("wait")
    text.append("exit 0")
    return "\n".join(text) + "\n"


def _share(cases: list[Case], job: int, jobs: int) -> list[Case]:
    """Return every jobs-th case; one that assembles goes with the one that compiled before it."""
    groups: list[list[Case]] = []
    for case in cases:
        if groups and case.script.startswith("assemble"):
            groups[-1].append(case)
        else:
            groups.append([case])
    return [case for group in groups[job::jobs] for case in group]
