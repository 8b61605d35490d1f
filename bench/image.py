"""Time to run /bin/true in a disk image beside a directory with the same tree.

    sudo python -m bench.image TREE [--rounds 30] [--xbuild PATH]

An image like a Raspberry Pi's, with FAT and ext4, is made of TREE in $TMPDIR and removed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile

from bench.measure import in_turn, parse_options, print_table
from tests.images import MIB, Part, make_image
from xbuild.record import HostPath

TARGET_MS = 100.0
_ROOM = 1.5  # of the tree's size, for the file system's own


def main() -> int:
    """Measure and print; returns 1 where the image takes longer than the target allows."""
    options = parse_options(__doc__, rounds=30)
    tree = HostPath(options.tree)
    place = tempfile.mkdtemp(prefix="xbuild-bench-")
    try:
        image = _image_of(tree, place)
        run = [options.xbuild, "run"]
        commands = {
            "directory": [*run, tree, "--", "/bin/true"],
            "image": [*run, image, "--", "/bin/true"],
            "image -x": [*run, "-x", image, "--", "/bin/true"],
        }
        times = in_turn(commands, rounds=options.rounds, warm_up=3)
    finally:
        shutil.rmtree(place)
    print_table(times, "image")
    more = statistics.median(times["image"]) - statistics.median(times["directory"])
    print(
        f"an image takes {more:.1f} ms more than a directory; at most {TARGET_MS:.0f} are allowed"
    )
    return 0 if more <= TARGET_MS else 1


def _image_of(tree: HostPath, place: str) -> HostPath:
    used = sum(
        os.lstat(os.path.join(directory, name)).st_blocks * 512
        for directory, _, names in os.walk(tree)
        for name in names
    )
    size = (int(used * _ROOM) // MIB + 64) * MIB
    parts = [Part("boot", "vfat", 64 * MIB), Part("root", "ext4", size, tree)]
    return make_image(os.path.join(place, "bench.img"), layout=parts)


if __name__ == "__main__":
    sys.exit(main())
