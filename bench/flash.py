"""Flashing a sparse image of 4 GiB with 700 MiB of data: xbuild, bmaptool and dd in one run.

    sudo python -m bench.flash [--directory DIR] [--rounds 5]

The device is a loop device with direct I/O on a file in DIR, which must have 9 GB free; it is the
same for all, and trimmed before each turn. bmaptool has the image's block map, as xbuild has.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import installed_xbuild, wall_ms

MIB = 1 << 20
IMAGE_SIZE = 4 << 30
DATA = 700 * MIB
PIECE = 14 * MIB


def main() -> int:
    """Measure and print; returns 0, or 1 where something needed is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--xbuild", default=installed_xbuild())
    options = parser.parse_args()
    missing = [name for name in ("bmaptool", "losetup") if shutil.which(name) is None]
    if missing or options.xbuild is None:
        print(f"bench: missing: {missing or 'an installed xbuild'}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="xbuild-bench-", dir=options.directory) as place:
        image = f"{place}/card.img"
        make_image(image)
        subprocess.run(["bmaptool", "-q", "create", "-o", f"{image}.bmap", image], check=True)
        with loop_device(f"{place}/device") as device:
            times = measure(commands(options.xbuild, image, device), device, options.rounds)
    report(times)
    return 0


def make_image(path: str) -> None:
    """Write pieces of data that no compression or comparison shortens, evenly spread."""
    count = DATA // PIECE
    with open(path, "wb") as file:
        for number in range(count):
            file.seek(IMAGE_SIZE // count * number // MIB * MIB)
            file.write(hashlib.shake_128(str(number).encode()).digest(PIECE))
        file.truncate(IMAGE_SIZE)
        os.fsync(file.fileno())


@contextmanager
def loop_device(path: str) -> Iterator[str]:
    """Show a new file of the image's size as a loop device."""
    with open(path, "wb") as file:
        file.truncate(IMAGE_SIZE)
    found = subprocess.run(
        ["losetup", "--direct-io=on", "--find", "--show", path],
        check=True,
        capture_output=True,
        text=True,
    )
    device = found.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def commands(xbuild: str, image: str, device: str) -> dict[str, list[str]]:
    """Return what is measured, by name."""
    flash = [xbuild, "image", "flash", image, device, "--yes"]
    return {
        "bmaptool": ["bmaptool", "-q", "copy", image, device],
        "xbuild write": [*flash, "--no-verify"],
        "xbuild": flash,
        "dd": ["dd", f"if={image}", f"of={device}", "bs=4M", "conv=fsync", "status=none"],
    }


def measure(commands: dict[str, list[str]], device: str, rounds: int) -> dict[str, list[float]]:
    """Return wall times in seconds of each, in turn, each from the same state."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            subprocess.run(["blkdiscard", device], check=True)
            os.sync()
            times[name].append(wall_ms(argv) / 1000)
    return times


def report(times: dict[str, list[float]]) -> None:
    """Print the median of each, its rate for what is data, and of the ratios in each round."""
    print(f"{'':<14}{'median s':>9}{'MiB/s':>8}{'times bmaptool':>16}   all")
    for name, values in times.items():
        middle = statistics.median(values)
        ratios = [a / b for a, b in zip(values, times["bmaptool"], strict=True)]
        listed = " ".join(f"{value:.2f}" for value in values)
        ratio = statistics.median(ratios)
        print(f"{name:<14}{middle:>9.2f}{DATA / MIB / middle:>8.0f}{ratio:>16.2f}   {listed}")
    print("targets: xbuild write at most 1.00 times bmaptool, xbuild at most 1.60")


if __name__ == "__main__":
    sys.exit(main())
