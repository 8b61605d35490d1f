"""Timing commands in turn, so that a drift of the machine's speed meets all of them alike."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time


def parse_options(
    document: str | None, *, rounds: int, arch: str | None = None
) -> argparse.Namespace:
    """Parse ``TREE [--rounds N] [--xbuild PATH]``; ``tree`` is made absolute.

    ``document`` is a bench's own, whose first line describes it. With ``arch``, the default, comes
    ``--arch`` for one that compares with what needs a registration. Raises SystemExit.
    """
    parser = argparse.ArgumentParser(description=(document or "").partition("\n")[0])
    parser.add_argument("tree", type=os.path.realpath)
    if arch is not None:
        parser.add_argument("--arch", default=arch)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--xbuild", default=installed_xbuild())
    options = parser.parse_args()
    if options.xbuild is None:
        sys.exit("bench: no installed xbuild; name it with --xbuild")
    return options


def installed_xbuild() -> str | None:
    """Return the xbuild beside the running Python, else the first on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "xbuild")
    return beside if os.access(beside, os.X_OK) else shutil.which("xbuild")


def wall_ms(argv: list[str]) -> float:
    """Run a command once, without input and output, and return its wall time in ms.

    Raises CalledProcessError when it fails: a failure is no measurement.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status = os.waitpid(process.pid, 0)
    elapsed = (time.perf_counter() - started) * 1000
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return elapsed


def in_turn(commands: dict[str, list[str]], *, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Return wall times in ms of each command, run A B C, A B C, …"""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(warm_up + rounds):
        for name, argv in commands.items():
            elapsed = wall_ms(argv)
            if number >= warm_up:
                times[name].append(elapsed)
    return times


def print_table(times: dict[str, list[float]], subject: str) -> None:
    """Print each command's minimum and median, and how ``subject`` compares with it."""
    ours = times[subject]
    print(f"{'':<16}{'min ms':>9}{'median ms':>11}   {subject} takes")
    for name, values in times.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        ratio = statistics.median(ratios)
        print(
            f"{name:<16}{min(values):>9.1f}{statistics.median(values):>11.1f}   {ratio:.2f} times"
        )
