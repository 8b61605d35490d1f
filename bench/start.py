"""Time to run /bin/true in a foreign tree: xbuild run beside its peers, in one run.

    sudo python -m bench.start TREE [--rounds 30] [--xbuild PATH]

TREE is an arm64 tree unless --arch says otherwise. ``--xbuild`` is the installed command.
"""

from __future__ import annotations

import sys

from bench.measure import in_turn, parse_options, print_table
from bench.peers import enter_private, leave_private, peers


def main() -> int:
    """Measure and print."""
    options = parse_options(__doc__, rounds=30, arch="aarch64")
    tree = options.tree
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


if __name__ == "__main__":
    sys.exit(main())
