"""Ask programs of a tree questions in a container, native ones in their place where wanted."""

from __future__ import annotations

import os
import tempfile

from xbuild.errors import ToolRefused
from xbuild.native.outputs import read_output
from xbuild.plan.make import plan_run
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath
from xbuild.sandbox.container import Container
from xbuild.toolset.manifest import INSIDE

_PLACE = "/run/xbuild-gate"
_LIMIT = 16 << 20  # bytes of one answer


def ask(
    tree: HostPath,
    questions: tuple[str, ...],
    *,
    before: tuple[str, ...] = (),
    root: HostPath | None = None,
    natives: tuple[tuple[GuestPath, str], ...] = (),
) -> tuple[str, ...]:
    """Run shell commands in the tree, those ``before`` first; return what each question wrote.

    Standard output and error together. ``natives`` are programs of a set's ``root`` by the path of
    the tree's own that they are shown over. What commands change in the tree is discarded. Raises
    ToolRefused when the tree's shell does not run, and what a run raises.
    """
    with tempfile.TemporaryDirectory(prefix="xbuild-gate-", dir="/var/tmp") as scratch:
        script, answers = HostPath(f"{scratch}/script"), HostPath(f"{scratch}/answers")
        os.mkdir(answers)
        os.chmod(answers, 0o777)
        with open(script, "w", encoding="utf-8", errors="surrogateescape") as file:
            lines = ["exec </dev/null", "cd /tmp", *before]
            for number, question in enumerate(questions):
                lines.append(f"{{ {question}\n}} >{_PLACE}/answers/{number} 2>&1")
            file.write("\n".join((*lines, "exit 0", "")))
        binds = [
            BindRequest(script, GuestPath(f"{_PLACE}/script"), read_only=True),
            BindRequest(answers, GuestPath(f"{_PLACE}/answers")),
        ]
        if root is not None:
            binds.append(BindRequest(root, INSIDE, read_only=True))
        for path, native in natives:
            binds.append(BindRequest(HostPath(f"{root}/{native}"), path, read_only=True))
        request = Request(
            tree,
            ("/bin/sh", f"{_PLACE}/script"),
            binds=tuple(binds),
            ephemeral=True,
            network="none",
        )
        status = Container(plan_run(request, remember=True)).run()
        if status != 0:
            raise ToolRefused(
                f"Cannot compare native tools with the tree's own: its shell ended with {status}",
                f"does it run? xbuild run {tree} -- /bin/sh -c true",
            )
        return tuple(_read(tree, f"{answers}/{number}") for number in range(len(questions)))


def _read(tree: HostPath, path: str) -> str:
    answer = read_output(path, _LIMIT)
    if answer is None:
        raise ToolRefused(
            f"Cannot compare native tools with the tree's own: {tree} left no file as its answer",
            "its shell writes elsewhere than it is told: is the tree to be trusted?",
        )
    return answer.decode("utf-8", "surrogateescape")
