"""The demonstration behind script/demo: a foreign tree, a compiler in it, a program out of it.

Fetches a Debian tree with gcc and make (once), compiles script/demo-program in it through
``xbuild run``, shows what was made and runs it. Without a network it says so, and runs one of
xbuild's own tiny programs instead. Exits 0 when everything that it shows is true.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time

from xbuild.binary.arch import arch_named, arch_of, host_arch
from xbuild.binary.elf import SNIFF_BYTES, sniff
from xbuild.binary.write import tiny_program
from xbuild.errors import MirrorUnavailable, SourceError, XbuildError
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory, locked, work_directory
from xbuild.source.debian import (
    BASE_PACKAGES,
    COMPILER_PACKAGES,
    default_suites,
    fetch_debian_tree,
)

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo-program")
XBUILD = os.path.join(os.path.dirname(sys.executable), "xbuild")
GREETING = b"Hello from a foreign machine\n"


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line for each stage."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = ""

    def __call__(self, text: str, fraction: float | None) -> None:
        """Show a stage and how much of it is done."""
        percent = "" if fraction is None else f"{fraction:4.0%} "
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{(percent + text)[:width]}", end="", file=sys.stderr, flush=True)
            return
        stage = text.split(" ", 1)[0]
        if stage != self._shown or fraction is None:
            elapsed_s = time.monotonic() - self._began
            print(f"{elapsed_s:6.1f} s  {text}", file=sys.stderr, flush=True)
        self._shown = stage

    def end(self) -> None:
        """Clear the line."""
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run the demonstration; return its exit status."""
    # A host that is arm64 itself would show nothing.
    debian_name = "arm64" if host_arch().name != "aarch64" else "riscv64"
    say(f"{debian_name}: a real tree with a C compiler, on this {host_arch().debian} machine")
    try:
        tree = compiler_tree(debian_name)
    except SourceError as error:
        say(f"NO TREE: {error.message}")
        if isinstance(error, MirrorUnavailable) and error.is_lasting:
            say("No packages can be had. What works without: a program of xbuild's own writing")
        else:
            say("What works without a mirror: a program of xbuild's own writing")
        return run_tiny_program(debian_name)
    return compile_and_run(tree, debian_name)


def compiler_tree(debian_name: str) -> HostPath:
    """Return the tree to compile in: the one of an earlier run, or a new one."""
    packages = BASE_PACKAGES + COMPILER_PACKAGES
    directory = HostPath(os.path.join(cache_directory(), "demo"))
    tree = HostPath(os.path.join(directory, f"{debian_name}-compiler"))
    progress = ProgressLine()
    with locked(directory, progress):
        if os.path.isdir(tree):
            say(f"using the tree of an earlier run: {tree}")
            return tree
        try:
            with work_directory(directory) as work:
                made = HostPath(os.path.join(work, "tree"))
                suites = default_suites(debian_name)
                fetch_debian_tree(debian_name, suites, packages, made, progress=progress)
                os.rename(made, tree)
        finally:
            progress.end()
    say(f"unpacked to {tree}")
    return tree


def compile_and_run(tree: HostPath, debian_name: str) -> int:
    """Build the demonstration program inside ``tree``, name its architecture and run it."""
    with tempfile.TemporaryDirectory(prefix="xbuild-demo-", dir="/var/tmp") as place:
        work = shutil.copytree(PROGRAM, os.path.join(place, "work"))
        os.chmod(place, 0o755)
        inside = ["--bind", f"{work}:/mnt", "--chdir", "/mnt", "--certify", tree, "--"]
        program = os.path.join(work, "build", "demo")
        return (
            show([XBUILD, "run", *inside, "make"])
            or show_machine(program, debian_name)
            or show([XBUILD, "run", *inside, "/mnt/build/demo"])
            or concluded(debian_name)
        )


def run_tiny_program(debian_name: str) -> int:
    """Run a static program of a hundred-odd bytes, in a tree that holds nothing else."""
    arch = arch_named(debian_name)
    with tempfile.TemporaryDirectory(prefix="xbuild-demo-", dir="/var/tmp") as tree:
        os.chmod(tree, 0o755)
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
            os.mkdir(os.path.join(tree, name))
        program = os.path.join(tree, "bin", "hello")
        with open(program, "wb") as file:
            file.write(tiny_program(arch, GREETING))
        os.chmod(program, 0o755)
        return (
            show_machine(program, debian_name)
            or show([XBUILD, "run", "--certify", tree, "--", "/bin/hello"])
            or concluded(debian_name)
        )


def show_machine(program: str, debian_name: str) -> int:
    """Print what ``program`` was compiled for; 1 if that is not the tree's architecture."""
    status = show([XBUILD, "inspect", program])
    with open(program, "rb") as file:
        ident = sniff(file.read(SNIFF_BYTES))
    arch = arch_of(ident) if ident else None
    say(f"ELF machine of {os.path.basename(program)}: {arch.machine_name if arch else 'unknown'}")
    return status or int(arch != arch_named(debian_name))


def show(command: list[str]) -> int:
    """Print a command, run it in view, and return its exit status."""
    shown = ["xbuild", *command[1:]] if command[0] == XBUILD else command
    print(f"\n$ {' '.join(shown)}", flush=True)
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode


def concluded(debian_name: str) -> int:
    """Say that all went well."""
    say(f"done: {debian_name} programs were made and run here, and this machine is as it was")
    return 0


def say(text: str) -> None:
    """Print one line of narration."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except XbuildError as error:
        sys.exit(f"demo: {error.message}\nhint: {error.hint}" if error.hint else error.message)
    except KeyboardInterrupt:
        sys.exit(130)
