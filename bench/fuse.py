"""Work in an image through FUSE, as an ordinary user, beside root's loop devices and a directory.

    sudo python -m bench.fuse [--rounds 5]

The tree is of the host's static busybox and Python's standard library, so that no emulation hides
the difference. Made in /var/tmp, and removed, as are the users that it runs as.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile

from bench.measure import in_turn
from tests import installation, users
from tests.crafted import Link, make_tree
from tests.disks import small_system
from tests.fuse import fuse_user
from tests.images import MIB, Part, make_image
from tests.users import User
from xbuild.record import HostPath

_SIZE = 2048 * MIB
_APPLETS = ("find", "mktemp", "tar", "xargs")
_JOBS = {
    "open": "true",
    "unpack": "tar -xf /root/files.tar -C $(mktemp -d /root/XXXXXX)",
    "read": "find /root/files -type f -print0 | xargs -0 cat >/dev/null",
    "write": "dd if=/dev/zero of=/root/big bs=1M count=128 conv=fsync",
}


def main() -> int:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: root makes the users and the images", file=sys.stderr)
        return 1
    place = tempfile.mkdtemp(prefix="xbuild-bench-", dir="/var/tmp")
    os.chmod(place, 0o755)
    try:
        with users.made_users():
            user = users.known_user(users.WITH_RANGE, f"{place}/home")
            _measure(place, fuse_user(user), options.rounds)
    finally:
        shutil.rmtree(place)
    return 0


def _measure(place: str, user: User, rounds: int) -> None:
    tree, count = _make_tree(f"{place}/tree")
    image = make_image(f"{place}/fuse.img", layout=[Part("root", "ext4", _SIZE, tree)])
    shutil.copyfile(image, f"{place}/loop.img")
    subprocess.run(["chown", "-hR", f"{user.uid}:{user.gid}", tree, image], check=True)
    ours = [installation.copy_for(user, HostPath(f"{place}/home")), "run"]
    targets = {
        "directory": user.argv([*ours, tree]),
        "loop, root": [*ours, f"{place}/loop.img"],
        "FUSE": user.argv([*ours, image]),
        "FUSE -x": user.argv([*ours, "-x", image]),
    }
    print(f"median ms; {count} files are unpacked, and read; 128 MiB are written")
    print(f"{'':<10}" + "".join(f"{name:>12}" for name in targets))
    for job, script in _JOBS.items():
        commands = {name: [*argv, "--", "sh", "-c", script] for name, argv in targets.items()}
        times = in_turn(commands, rounds=rounds, warm_up=1)
        medians = (statistics.median(values) for values in times.values())
        print(f"{job:<10}" + "".join(f"{median:>12.0f}" for median in medians))


def _make_tree(path: str) -> tuple[HostPath, int]:
    layout = small_system() | {f"bin/{name}": Link("busybox") for name in _APPLETS}
    os.mkdir(path)
    tree = make_tree(path, layout)
    library = sysconfig.get_path("stdlib")
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
    shutil.copytree(library, f"{tree}/root/files", symlinks=True, ignore=ignored)
    subprocess.run(
        ["tar", "-C", f"{tree}/root/files", "-cf", f"{tree}/root/files.tar", "."], check=True
    )
    return HostPath(tree), sum(len(names) for _, _, names in os.walk(f"{tree}/root/files"))


if __name__ == "__main__":
    sys.exit(main())
