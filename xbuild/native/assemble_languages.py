"""Lay out compilers that are cross compilers as they are, each made to compile for the tree."""

from __future__ import annotations

import os
from collections.abc import Callable

from xbuild.errors import DamagedElf, ProviderUnsuitable
from xbuild.native.launchers import EMULATED, GO_VARIABLES, go_launcher, rustc_launcher
from xbuild.native.llvm import is_llvm, retarget
from xbuild.native.programs import Program
from xbuild.native.relocate import Layout
from xbuild.record import GuestPath

_SCRIPT = ".sh"

ReadTargets = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Given shell commands, runs them in the tree, emulated, and returns what each printed."""


class Languages:
    """Adds such compilers to ``layout``, and asks the tree's own ones once what they compile for.

    ``shell`` is the set's dash, a path in its root; ``""`` where there is none. ``content`` reads
    a program of the tree.
    """

    def __init__(
        self,
        layout: Layout,
        shell: str,
        content: Callable[[GuestPath], bytes],
        programs: tuple[Program, ...],
        ask: ReadTargets,
    ) -> None:
        self._layout = layout
        self._shell = shell
        self._content = content
        self._refused = ""
        questions = {p.path: q for p in programs if (q := _question(p))}
        commands = tuple(dict.fromkeys(questions.values()))
        answers = dict(zip(commands, ask(commands), strict=True)) if commands else {}
        self._answers = {path: answers[question] for path, question in questions.items()}
        triples = {self._answers[p.path].strip() for p in programs if _is_clang(p)}
        if len(triples) == 1:
            (triple,) = triples
            layout.change_libraries(lambda name, library: self._changed(triple, name, library))
        elif triples:
            self._refused = f"the tree's compile for {' and '.join(sorted(triples))}"

    def add(self, program: Program, native: str) -> str:
        """Add one program; return the path in the root of what is to be executed.

        Raises ProviderUnsuitable where it cannot be made to compile for the tree.
        """
        added = self._layout.add_program(native)
        assert program.language is not None
        match program.language.family:
            case "llvm":
                if self._refused and _is_clang(program):
                    raise ProviderUnsuitable(
                        f"Cannot have it compile for the tree: {self._refused}"
                    )
                return added
            case "rust":
                place = f"{EMULATED}/{os.path.basename(program.path)}"
                copy = self._layout.add_file(place, self._content(program.path))
                target = _value_behind("host: ", self._answers[program.path])
                script = rustc_launcher(self._usable_shell(), added, copy, target)
            case "go":
                lines = self._answers[program.path].splitlines()
                machine = dict(zip(GO_VARIABLES, lines, strict=False))
                told = {name: value for name, value in machine.items() if value}
                script = go_launcher(self._usable_shell(), added, told)
        return self._layout.add_file(f"{added}{_SCRIPT}", script.encode())

    def _usable_shell(self) -> str:
        if not self._shell:
            raise ProviderUnsuitable("Cannot start it: there is no native dash for this tree")
        return self._shell

    def _changed(self, triple: str, name: str, library: bytes) -> bytes:
        if not is_llvm(name):
            return library
        try:
            return retarget(library, triple)
        except DamagedElf as error:
            self._refused = f"{name}: {error.message}"
            return library


def _is_clang(program: Program) -> bool:
    return os.path.basename(program.path) == "clang"


def _question(program: Program) -> str:
    """Return the command by which a program's own installation tells what it compiles for."""
    if program.language is None:
        return ""
    match program.language.family:
        case "llvm":
            return f"{program.path} -dumpmachine" if _is_clang(program) else ""
        case "rust":
            return f"{program.path} -vV"
        case "go":
            root = program.path.partition("/pkg/tool/")[0]
            return f"HOME=/tmp {root}/bin/go env {' '.join(GO_VARIABLES)}"


def _value_behind(key: str, answer: str) -> str:
    found = (line.removeprefix(key) for line in answer.splitlines() if line.startswith(key))
    return next(found, "")
