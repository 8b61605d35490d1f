"""Whether a tree can be run here and how: found by running a tiny program of ours in it.

The program lies in the container's own /run, so that nothing of the tree is executed, and nothing
in the tree is changed.
"""

from __future__ import annotations

import os
import tempfile

from xbuild.binary.write import has_tiny_program, tiny_program
from xbuild.emulation.trial import TRIAL_STATUS, TRIAL_TEXT
from xbuild.errors import HostUnable, TargetError, XbuildError
from xbuild.plan.emulate import choose_emulation
from xbuild.plan.host import Host
from xbuild.plan.make import plan_run
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox.container import Container
from xbuild.sandbox.experiment import in_child
from xbuild.tree.target import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.binary.arch import Arch
    from xbuild.plan.emulate import Emulation
    from xbuild.tree.survey import Survey

_INSIDE = GuestPath("/run/xbuild-doctor")
_TIMEOUT_S = 60.0
_OUTPUT_LIMIT = 4096  # bytes
_HOW_TO_UNPACK = "unpack it first: mkdir TREE && tar -C TREE -xpf {}"


class Rehearsal(Record):
    """What came of it: ``problem`` and ``fix`` where the tree cannot be run.

    ``was_tried`` is False where there is no program of ours for its architecture.
    """

    target: HostPath
    survey: Survey | None = None
    emulations: tuple[Emulation, ...] = ()
    notes: tuple[str, ...] = ()
    was_tried: bool = False
    problem: str = ""
    fix: str = ""

    @property
    def can_run(self) -> bool:
        """Whether ``xbuild run`` works on it."""
        return not self.problem


def rehearse(target: HostPath) -> Rehearsal:
    """Survey ``target``, plan a run and do it with a tiny program as the command."""
    try:
        found = survey(target)
    except XbuildError as error:
        return Rehearsal(target, problem=error.message, fix=error.hint)
    if found.kind != "directory" or found.arch is None:
        hint = _HOW_TO_UNPACK.format(target) if found.kind == "archive" else ""
        problem = f"{target} is {_article(found.kind)}, and what runs is a directory"
        return Rehearsal(target, found, problem=problem, fix=hint)
    if found.is_loader_missing:
        problem = f"the dynamic loader {found.loader} of its programs is not in the tree"
        return Rehearsal(target, found, problem=problem, fix="install the tree's C library")
    return _rehearse_tree(HostPath(os.path.realpath(target)), found, found.arch)


def _rehearse_tree(target: HostPath, found: Survey, arch: Arch) -> Rehearsal:
    request = Request(target, command=(_INSIDE,))
    emulations: tuple[Emulation, ...] = ()
    notes: tuple[str, ...] = ()
    try:
        emulations = choose_emulation(found, request, Host.probe(), remember=False)
        notes = plan_run(request, remember=False).notes
        if has_tiny_program(arch):
            _try(target, arch)
    except XbuildError as error:
        problem, fix = error.message, error.hint
        return Rehearsal(target, found, emulations, notes, problem=problem, fix=fix)
    except OSError as error:
        return Rehearsal(target, found, emulations, notes, problem=str(error))
    return Rehearsal(target, found, emulations, notes, was_tried=has_tiny_program(arch))


def _try(target: HostPath, arch: Arch) -> None:
    with tempfile.TemporaryDirectory(prefix="xbuild-doctor-", dir=_executable_place()) as place:
        os.chmod(place, 0o755)
        program = HostPath(f"{place}/program")
        with open(program, "wb") as file:
            file.write(tiny_program(arch, TRIAL_TEXT, status=TRIAL_STATUS))
        os.chmod(program, 0o755)
        bind = BindRequest(program, _INSIDE, read_only=True)
        in_child(lambda: _run(Request(target, (_INSIDE,), (bind,))), timeout_s=_TIMEOUT_S)


def _executable_place() -> HostPath:
    """Return a directory for temporary files that is not mounted noexec."""
    for place in _temporary_places():
        if os.access(place, os.W_OK) and not os.statvfs(place).f_flag & os.ST_NOEXEC:
            return HostPath(place)
    raise HostUnable("no directory for temporary files allows execution", "set TMPDIR to one")


def _temporary_places() -> Iterator[str]:
    yield tempfile.gettempdir()
    yield from ("/var/tmp", "/dev/shm", os.path.expanduser("~"))


def _run(request: Request) -> str:
    """Run the plan in this process, made for it, and check what the program did."""
    plan = plan_run(request, remember=False)
    output = os.memfd_create("output")
    null = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, number)
    status = Container(plan).run()
    os.lseek(output, 0, os.SEEK_SET)
    written = os.read(output, _OUTPUT_LIMIT)
    if status != TRIAL_STATUS or written != TRIAL_TEXT:
        said = written.decode("utf-8", "replace").strip().splitlines()
        reason = f": {said[0]}" if said else ""
        raise TargetError(
            f"a program in it ended with status {status} instead of running{reason}",
            "xbuild run TREE -- COMMAND shows more; xbuild setup gets another qemu",
        )
    return ""


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
