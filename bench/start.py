"""Time to run /bin/true in a foreign tree: xbuild run beside its peers, in one run.

    sudo python -m bench.start TREE [--rounds 30] [--xbuild PATH]

TREE is an arm64 tree unless --arch says otherwise. ``--xbuild`` is the installed command.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from bench.measure import in_turn, print_table
from bench.peers import enter_private, leave_private, peers


def main() -> int:
    """Measure and print; returns 0, or 1 where xbuild is not installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tree")
    parser.add_argument("--arch", default="aarch64")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--xbuild", default=installed_xbuild())
    options = parser.parse_args()
    if options.xbuild is None:
        print("bench: no installed xbuild; name it with --xbuild", file=sys.stderr)
        return 1
    tree = os.path.realpath(options.tree)
    command = ["/bin/true"]
    enter_private(options.arch)
    try:
        commands = {"xbuild": [options.xbuild, "run", tree, "--", *command]}
        commands |= {
            "xbuild -x": [options.xbuild, "run", "-x", tree, "--", *command],
            **peers(tree, command),
        }
        times = in_turn(commands, rounds=options.rounds, warm_up=3)
    finally:
        leave_private(options.arch)
    print(f"/bin/true in {tree}, {options.rounds} rounds in turn")
    print_table(times, "xbuild")
    return 0


def installed_xbuild() -> str | None:
    """Return the xbuild beside the running Python, else the first on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "xbuild")
    return beside if os.access(beside, os.X_OK) else shutil.which("xbuild")


if __name__ == "__main__":
    sys.exit(main())
