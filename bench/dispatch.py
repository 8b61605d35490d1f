"""What --native costs a program that stays emulated, and what a native one takes instead.

    python -m bench.dispatch TREE [--rounds 10] [--xbuild PATH]

A set of 200 programs is made for the tree in a cache of its own; each native one is a tiny static
program that ends at once. Then a shell of the tree, emulated, runs `uname` and `arch` many times:
with and without --native `uname` is emulated, and with it `arch` is native.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile

from bench.measure import in_turn
from bench.start import installed_xbuild
from xbuild.binary.arch import host_arch
from xbuild.binary.write import tiny_program
from xbuild.record import GuestPath, HostPath
from xbuild.toolset.manifest import File, Tool, Toolset, compute_digest, write_manifest
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_directory

EXECS = 200
TOOLS = 200
SHELL = "/usr/bin/bash"
EMULATED, NATIVE = "/usr/bin/uname", "/usr/bin/arch"
LOOP = f"for ((i = 0; i < {EXECS}; i++)); do $0; done"


def main() -> int:
    """Measure and print; returns 0, or 1 where xbuild is not installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tree")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--xbuild", default=installed_xbuild())
    options = parser.parse_args()
    if options.xbuild is None:
        print("bench: no installed xbuild; name it with --xbuild", file=sys.stderr)
        return 1
    tree = HostPath(os.path.realpath(options.tree))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as cache:
        make_set(tree, HostPath(f"{cache}/xbuild/native/sets"))
        os.environ["XDG_CACHE_HOME"] = cache
        run = [options.xbuild, "run"]
        commands = {
            "nothing, plain": [*run, tree, "--", SHELL, "-c", "true"],
            "nothing, --native": [*run, "--native", tree, "--", SHELL, "-c", "true"],
            "emulated, plain": [*run, tree, "--", SHELL, "-c", LOOP, EMULATED],
            "emulated, --native": [*run, "--native", tree, "--", SHELL, "-c", LOOP, EMULATED],
            "native, --native": [*run, "--native", tree, "--", SHELL, "-c", LOOP, NATIVE],
        }
        times = in_turn(commands, rounds=options.rounds, warm_up=1)
    for way in ("plain", "--native"):
        print(f"a start, {way:<10} {statistics.median(times[f'nothing, {way}']):8.2f} ms")
    for name in ("emulated, plain", "emulated, --native", "native, --native"):
        base = statistics.median(times[f"nothing, {name.split(', ')[1]}"])
        each = (statistics.median(times[name]) - base) / EXECS
        print(f"fork, exec and wait from an emulated shell, {name:<20} {each:8.3f} ms")
    return 0


def make_set(tree: HostPath, sets: HostPath) -> None:
    """Make a set that knows programs of ``tree``, all but the shell and what stays emulated."""
    with DirectoryReader(tree) as reader:
        arch = survey_directory(reader).arch
    assert arch is not None
    names = sorted(os.listdir(f"{tree}/usr/bin"), key=lambda name: (name != "arch", name))
    kept = [os.path.basename(path) for path in (SHELL, EMULATED)]
    paths = [f"/usr/bin/{name}" for name in names if name not in kept]
    files = [p for p in paths if os.path.isfile(tree + p) and not os.path.islink(tree + p)][:TOOLS]
    program = tiny_program(host_arch(), b"")
    tools = tuple(
        Tool(
            *(GuestPath(path), _digest(tree + path), "other", path[1:]),
            level="exact",
            verdict="identical",
        )
        for path in files
    )
    content = hashlib.sha256(program).hexdigest()
    listed = tuple(File(tool.native, content) for tool in tools)
    made = Toolset(arch.name, host_arch().name, "bench", (), tools, listed)
    place = HostPath(f"{sets}/{compute_digest(made)}")
    os.makedirs(f"{place}/root/usr/bin")
    for tool in tools:
        with open(f"{place}/root/{tool.native}", "wb") as file:
            file.write(program)
            os.fchmod(file.fileno(), 0o755)
    write_manifest(made, place)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
