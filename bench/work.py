"""Emulated work inside: the same job under xbuild run and in a plain chroot, in one run.

    sudo python -m bench.work TREE [--rounds 7]

The job hashes and sorts inside the tree, so that it spends its time in emulated programs.
"""

from __future__ import annotations

import sys

from bench.measure import in_turn, parse_options, print_table
from bench.peers import enter_private, leave_private, peers

JOB = (
    "i=0; while [ $i -lt 40 ]; do /bin/true; i=$((i+1)); done;"
    " for n in 1 2 3; do sha256sum /usr/bin/* 2>/dev/null | sort | md5sum; done"
)


def main() -> int:
    """Measure and print."""
    options = parse_options(__doc__, rounds=7, arch="aarch64")
    tree = options.tree
    command = ["/bin/sh", "-c", JOB]
    enter_private(options.arch)
    try:
        chosen = {"xbuild": [options.xbuild, "run", tree, "--", *command]}
        chosen |= {n: a for n, a in peers(tree, command).items() if n in ("chroot", "bubblewrap")}
        times = in_turn(chosen, rounds=options.rounds, warm_up=1)
    finally:
        leave_private(options.arch)
    print(f"hashing and sorting in {tree}, {options.rounds} rounds in turn")
    print_table(times, "xbuild")
    return 0


if __name__ == "__main__":
    sys.exit(main())
