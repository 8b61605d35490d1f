"""Whether native programs are the tree's own, built for this host: gate (a), before any corpus.

By revision of the packages, by what GCC was configured with (read from the programs, not asked of
them), and by running both in the tree where only that tells: where headers and libraries are
looked for, which commands a driver would run, and what shells and make call the machine.
"""

from __future__ import annotations

import os
import re

from xbuild.errors import ToolRefused
from xbuild.native.gate_languages import language_questions
from xbuild.native.gcc_driver import parse_specs
from xbuild.native.inquiry import ask
from xbuild.native.revision import configuration_differences
from xbuild.record import GuestPath, HostPath, Record
from xbuild.toolset.manifest import Tool

_LISTS_HEADERS = frozenset(("cc1", "cc1plus", "cc1obj", "cc1objplus", "f951"))
_MACHINE_QUESTIONS = {
    "bash": "{} -c 'echo $HOSTTYPE $MACHTYPE $OSTYPE ${BASH_VERSINFO[*]}'; {} --version",
    "make": "{} --version; printf '$(info $(MAKE_HOST) $(.FEATURES))all:\\n' | {} -f -",
}
_SOURCES = {"gcc": "x.c", "g++": "x.cc", "gfortran": "x.f90", "cpp": "x.c"}
_SOURCE_NAMES = " ".join(sorted({*_SOURCES.values(), "x.s", "x.S", "x.o"}))
# Command lines of drivers: what they would run must be the same to the letter.
_DRIVER_CASES = (
    *("-c", "-O2 -g -fPIC -shared", "-static", "-static-pie", "-no-pie", "-pie", "-pg", "-r"),
    *("-flto -O2 -ffat-lto-objects", "-pthread", "-S -std=c11", "-E", "-M", "-MMD -MF x.d -c"),
    *("-fsyntax-only", "-nostdlib", "-nodefaultlibs", "-nostartfiles", "-nostdinc -c", "-Ofast"),
    *("-fsanitize=address,undefined", "-Wl,-z,now -L/x -B/y -I/z -Dx=1 -lfoo", "-rdynamic -lfoo"),
    *("-fprofile-generate", "--coverage", "-fuse-ld=gold", "-fuse-ld=bfd", "-x c -", "-save-temps"),
    *("-static-libgcc", "-static-libstdc++", "-O3 -funroll-loops -fno-plt -c -o y.o", "-s"),
    *("-fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wformat -Wall -Werror -c", "-fno-lto -c"),
    *("-Wa,-a -Wp,-DX -Xlinker -y -T x.ld", "--sysroot=/x", "-gdwarf-4 -gsplit-dwarf -c", "-pipe"),
    *("-fvisibility=hidden -fdata-sections -Wl,--gc-sections", "-fdiagnostics-color=always -c"),
    *("x.s x.o -o y", "x.S -c", "-shared x.o -Wl,-soname,libx.so.1 -o libx.so.1"),
)
_PLAIN_QUESTIONS = (
    *("--version", "-dumpmachine", "-dumpversion", "-dumpfullversion", "-print-multiarch"),
    *("-print-file-name=crt1.o", "-print-libgcc-file-name", "-print-prog-name=ld"),
    *("-print-prog-name=cc1", "-print-multi-lib", "-print-sysroot", "-print-multi-os-directory"),
)
# A cross build may be made to warn of directories that are the host's where it cross-compiles
# (--enable-poison-system-directories), and to look below a system root of its own.
_SYSTEM_HEADERS = "-I/usr/include -I/usr/local/include"
_LINKER_QUESTIONS = (
    *("--version", "--verbose", "-L/usr/lib x.o -lx -o /dev/null"),
    "-shared -L/lib -L/usr/lib -L/usr/local/lib -lx -o /dev/null",
)
# Of its own making, and so never the same: the driver is emulated where it shows them.
_HEADER = re.compile(r"^(Configured with: |OFFLOAD_TARGET|COLLECT_GCC=|COLLECT_LTO)")
# Where it stands among the options matters in commands alone, which are compared as they are.
_OFFLOADED = re.compile(r"'-foffload-options=[^']*' ?")
_TEMPORARY = re.compile(r"/tmp/(?:cc\w+|x-[0-9a-f]{6}\b)")


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


def read_specs(
    tree: HostPath, root: HostPath, drivers: tuple[tuple[GuestPath, str], ...]
) -> dict[GuestPath, tuple[dict[str, str], dict[str, str]]]:
    """Return the specs of drivers of the tree and of their native counterparts in ``root``.

    ``drivers`` has the paths of both.
    """
    if not drivers:
        return {}
    questions = tuple(f"{path} -dumpspecs" for path, _ in drivers)
    ours = ask(tree, questions)
    theirs = ask(tree, questions, root=root, natives=drivers)
    return {
        path: (parse_specs(ours[number]), parse_specs(theirs[number]))
        for number, (path, _) in enumerate(drivers)
    }


def compare_answers(
    tree: HostPath, root: HostPath, tools: tuple[Tool, ...], triplet: str
) -> tuple[Comparison, ...]:
    """Ask programs of the tree, emulated, and then their native counterparts in ``root`` the same.

    Only tools that can tell are asked and returned. Raises XbuildError subclasses when the tree
    does not run.
    """
    asked = [
        (tool, question) for tool in tools if tool.native for question in _questions(tool, triplet)
    ]
    if not asked:
        return ()
    questions = tuple(question for _, question in asked)
    before = _places(tuple(tool for tool, _ in asked), triplet)
    natives = tuple(dict.fromkeys((tool.path, tool.native) for tool, _ in asked))
    ours = ask(tree, questions, before=before)
    theirs = ask(tree, questions, before=before, root=root, natives=natives)
    found: dict[GuestPath, str] = {}
    for (tool, _), mine, native in zip(asked, ours, theirs, strict=True):
        found[tool.path] = found.get(tool.path) or _difference(mine, native)
    return tuple(Comparison(path, difference) for path, difference in found.items())


def _questions(tool: Tool, triplet: str) -> tuple[str, ...]:
    name = os.path.basename(tool.path)
    if name in _LISTS_HEADERS and "/gcc/" in tool.path:
        # f951 has the preprocessor list them, for -cpp alone.
        mode = "-cpp=/dev/null " if name == "f951" else ""
        return (
            f"{tool.path} -quiet -v {mode}-imultiarch {triplet} -o /dev/null /dev/null",
            f"{tool.path} -quiet {mode}{_SYSTEM_HEADERS} -o /dev/null /dev/null",
        )
    if name == "collect2":
        return (f"{tool.path} -v; {tool.path} x.o -lfoo",)
    of_language = language_questions(tool.path)
    if of_language:
        return of_language
    language = language_of(tool.path)
    if tool.kind == "driver" and language in _SOURCES:
        source = _SOURCES[language]
        cases = tuple(
            f"{tool.path} -### {case} {source}"
            for case in _DRIVER_CASES
            if not any(word.startswith(tool.emulate_for) for word in case.split())
        )
        return (*cases, *(f"{tool.path} {each}" for each in _PLAIN_QUESTIONS))
    if name.endswith(("-ld.bfd", "-ld.gold")):
        return tuple(f"{tool.path} {each}" for each in _LINKER_QUESTIONS)
    if tool.kind in ("assembler", "linker", "binutils") and name != "lto-wrapper":
        return (f"{tool.path} --version",)
    question = _MACHINE_QUESTIONS.get(name)
    return (question.replace("{}", tool.path),) if question else ()


def language_of(driver: str) -> str:
    """Return a driver's name without triplet and version: gcc, g++, cpp, gfortran."""
    return re.sub(r"-[0-9.]+$", "", re.sub(r"^.*-linux-[a-z0-9]+-", "", os.path.basename(driver)))


def _places(tools: tuple[Tool, ...], triplet: str) -> tuple[str, ...]:
    """Return commands that make what programs look for and an empty tree lacks.

    Each side must look there too, and in the same order.
    """
    places = [f"/usr/local/include/{triplet}", f"/usr/{triplet}/include", f"/usr/{triplet}/lib"]
    for tool in tools:
        if os.path.basename(tool.path) in _LISTS_HEADERS:
            within = os.path.dirname(tool.path).replace("/libexec/", "/lib/")
            places.append(f"{within}/include-fixed")
    return (f"mkdir -p {' '.join(dict.fromkeys(places))}", f"touch {_SOURCE_NAMES}")


def _difference(tree: str, native: str) -> str:
    ours, theirs = _lines(tree), _lines(native)
    if ours == theirs:
        return ""
    for mine in ours:
        if mine not in theirs:
            return f"the tree's says {_shortened(mine)}, the native one does not"
    for line in theirs:
        if line not in ours:
            return f"the native one says {_shortened(line)}, the tree's does not"
    return "they say the same in another order"


def _shortened(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) < 160 else text[:157] + "...")


def _lines(said: str) -> list[str]:
    """Return what a program said; of a compiler, the list of directories alone."""
    lines = [_neutral(line) for line in said.splitlines()]
    start = next((i for i, line in enumerate(lines) if "search starts here" in line), None)
    if start is None:
        return [line for line in lines if not _HEADER.match(line)]
    end = next((i for i, line in enumerate(lines) if line.startswith("End of search")), len(lines))
    return lines[start:end]


def _neutral(line: str) -> str:
    text = _TEMPORARY.sub("/tmp/cc", line)
    return _OFFLOADED.sub("", text).rstrip() if text.startswith("COLLECT_GCC_OPTIONS=") else text
