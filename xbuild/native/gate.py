"""Whether native programs are the tree's own, built for this host: gate (a), before any corpus.

By revision of the packages, by what GCC was configured with (read from the programs, not asked of
them), and by running both in the tree where only that tells: where headers are looked for, and
what shells and make call the machine.
"""

from __future__ import annotations

import os
import tempfile

from xbuild.errors import ToolRefused
from xbuild.native.revision import configuration_differences
from xbuild.plan.make import plan_run
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox.container import Container
from xbuild.toolset.manifest import INSIDE, Tool

_PLACE = "/run/xbuild-gate"
_LISTS_HEADERS = frozenset(("cc1", "cc1plus", "cc1obj", "cc1objplus", "f951"))
_QUESTIONS = {
    "bash": "-c 'echo $HOSTTYPE $MACHTYPE $OSTYPE ${BASH_VERSINFO[*]}; \"$0\" --version'",
    "make": "--version; printf 'all:\\n\\t@:\\n$(info $(MAKE_HOST) $(.FEATURES))\\n' | {} -f -",
}


class Comparison(Record):
    """A program asked the same twice; ``difference`` is ``""`` where both said the same."""

    path: GuestPath
    difference: str


def check_configuration(tree: str, native: str) -> None:
    """Compare what two builds of GCC were configured with.

    Raises ToolRefused, naming what differs beyond what may.
    """
    if not tree or not native:
        return
    differences = configuration_differences(tree, native)
    if differences:
        raise ToolRefused("configured otherwise: " + ", ".join(differences))


def compare_answers(
    tree: HostPath, root: HostPath, tools: tuple[Tool, ...], triplet: str
) -> tuple[Comparison, ...]:
    """Ask programs of the tree, emulated, and their native counterparts in ``root`` the same.

    The tree is not written to. Only tools that can tell are asked and returned. Raises XbuildError
    subclasses when the tree does not run.
    """
    asked = [tool for tool in tools if tool.native and _question(tool.path, triplet)]
    if not asked:
        return ()
    with tempfile.TemporaryDirectory(prefix="xbuild-gate-", dir="/var/tmp") as scratch:
        os.chmod(scratch, 0o755)
        script, answers = f"{scratch}/script", f"{scratch}/answers"
        os.mkdir(answers)
        os.chmod(answers, 0o777)
        with open(script, "w", encoding="utf-8") as file:
            file.write(_script(asked, triplet))
        request = Request(
            tree,
            ("/bin/sh", f"{_PLACE}/script"),
            binds=(
                BindRequest(root, INSIDE, read_only=True),
                BindRequest(HostPath(script), GuestPath(f"{_PLACE}/script"), read_only=True),
                BindRequest(HostPath(answers), GuestPath(f"{_PLACE}/answers")),
            ),
            ephemeral=True,
            network="none",
        )
        status = Container(plan_run(request, remember=True)).run()
        if status != 0:
            raise ToolRefused(f"the tree's shell ended with status {status}")
        return tuple(
            Comparison(tool.path, _difference(answers, number)) for number, tool in enumerate(asked)
        )


def _script(asked: list[Tool], triplet: str) -> str:
    lines = ["exec </dev/null; cd /"]
    # Directories that an empty tree lacks: each side must look into them, and in the same order.
    for place in (f"/usr/local/include/{triplet}", f"/usr/{triplet}/include"):
        lines.append(f"mkdir -p {place}")
    for number, tool in enumerate(asked):
        within = os.path.dirname(tool.path).replace("/libexec/", "/lib/")
        if os.path.basename(tool.path) in _LISTS_HEADERS:
            lines.append(f"mkdir -p {within}/include-fixed")
        for side, program in (("tree", tool.path), ("native", f"{INSIDE}/{tool.native}")):
            question = _question(tool.path, triplet).replace("{}", program)
            lines.append(f"{{ {program} {question}; }} >{_PLACE}/answers/{number}.{side} 2>&1")
    return "\n".join((*lines, "exit 0", ""))


def _question(path: GuestPath, triplet: str) -> str:
    name = os.path.basename(path)
    if name in _LISTS_HEADERS and "/gcc/" in path:
        # f951 calls the preprocessor, which lists them, for -cpp alone.
        mode = "-cpp=/dev/null " if name == "f951" else ""
        return f"-quiet -v {mode}-imultiarch {triplet} -o /dev/null /dev/null"
    return _QUESTIONS.get(name, "")


def _difference(answers: str, number: int) -> str:
    ours, theirs = (_lines(f"{answers}/{number}.{side}") for side in ("tree", "native"))
    if ours == theirs:
        return ""
    for mine in ours:
        if mine not in theirs:
            return f"the tree's says {mine.strip()!r}, the native one does not"
    return (
        f"the native one says {next(t for t in theirs if t not in ours).strip()!r}"
        if set(theirs) - set(ours)
        else "it says the same in another order"
    )


def _lines(path: str) -> list[str]:
    """Return what a program said; of a compiler, the list of directories alone."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    start = next((i for i, line in enumerate(lines) if "search starts here" in line), None)
    if start is None:
        return lines
    end = next((i for i, line in enumerate(lines) if line.startswith("End of search")), len(lines))
    return lines[start:end]
