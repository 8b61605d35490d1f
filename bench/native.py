"""Builds of real projects in a foreign tree: emulated, with native tools, and cross-compiled.

    sudo python -m bench.native [--architecture arm64] [--rounds 3] [--variants exact,fast,…]

The trees are Debian's: one of the architecture with its compilers, and one of this machine's with
the cross compilers, which builds the same sources as plain cross-compiling does. Variants take
turns within a round, each build begins with fresh sources at the same path, and what it made is
compared byte by byte with the first emulated build's. Prints a table, and writes native.json and
native.svg to --output. Beside wall time stands processor time, of xbuild and all that it started:
on a busy machine that is what to compare. What distcc servers use is not in it.

Variants: emulated, cross, exact, fast, ccache-cold, ccache-warm, distcc-1, distcc-2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure import installed_xbuild
from bench.native_compare import Comparison, compare_builds
from bench.native_plot import plot
from bench.native_projects import PRELUDE, PROJECTS, Project, fetch, made_files, unpack
from tests.native_trees import PACKAGES, SUITE
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_tree

TRIPLETS = {
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "riscv64": "riscv64-linux-gnu",
}
DEFAULT = ("emulated", "exact", "fast", "cross")
VARIANTS = (*DEFAULT, "ccache-cold", "ccache-warm", "distcc-1", "distcc-2")
BUILD = "/build"  # the same for all: it is in the debug information
TARGETS = {"exact": (10.0, 1.5), "fast": (15.0, 1.2)}
CONFIGURE_LIMIT = 2.2
UNITS = ("wall s", "processor s")
_FIRST_PORT = 36320


@dataclass(frozen=True)
class Setting:
    """What all builds of a run share."""

    xbuild: str
    tree: str
    cross: str
    triplet: str
    jobs: int
    place: Path
    servers: tuple[str, ...] = ()


@dataclass
class Result:
    """All of one project and one variant."""

    seconds: list[float]
    cpu_seconds: list[float]
    comparison: Comparison | None = None

    def times(self, unit: str) -> list[float]:
        """Return the times of all rounds in one of UNITS."""
        return self.seconds if unit == UNITS[0] else self.cpu_seconds


def main() -> int:
    """Measure, print and write; returns 0, or 1 where a target was missed."""
    options = _options()
    if options.xbuild is None:
        print("bench: no installed xbuild; name it with --xbuild", file=sys.stderr)
        return 1
    projects = [p for p in PROJECTS if p.name in options.projects.split(",")]
    variants = [v for v in VARIANTS if v in options.variants.split(",")]
    archives = fetch([p.package for p in projects], SUITE)
    tree = options.tree or bench_tree(options.architecture, SUITE, PACKAGES)
    triplet = TRIPLETS[options.architecture]
    cross = options.cross or bench_tree(_host(), SUITE, _cross_packages(options.architecture))
    with tempfile.TemporaryDirectory(prefix="xbuild-bench-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        setting = Setting(options.xbuild, tree, cross, triplet, options.jobs, Path(place))
        if set(variants) - {"emulated", "cross"}:
            subprocess.run([options.xbuild, "native", "prepare", tree], check=True)
        with served(setting, 2 if any(v.startswith("distcc") for v in variants) else 0) as hosts:
            setting = replace(setting, servers=hosts)
            results = measure(setting, projects, archives, variants, options.rounds)
    return report(results, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architecture", default="arm64", choices=TRIPLETS)
    parser.add_argument("--tree", help="a tree with compilers, in place of Debian's")
    parser.add_argument("--cross", help="a tree of this machine's with cross compilers")
    parser.add_argument("--projects", default=",".join(p.name for p in PROJECTS))
    parser.add_argument("--variants", default=",".join(DEFAULT))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--xbuild", default=installed_xbuild())
    options = parser.parse_args()
    unknown = set(options.variants.split(",")) - set(VARIANTS)
    if unknown:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
    return options


def _host() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def _cross_packages(architecture: str) -> tuple[str, ...]:
    triplet = TRIPLETS[architecture]
    compilers = (f"gcc-{triplet}", f"g++-{triplet}", f"libc6-dev-{architecture}-cross")
    return (*BASE_PACKAGES, "make", *compilers)


def bench_tree(architecture: str, suite: str, packages: tuple[str, ...]) -> str:
    """Return a tree of these packages, made where there is none of an earlier run."""
    kind = "cross-" + packages[-1] if packages[-1].endswith("-cross") else "tree"
    place = os.path.join(cache_directory(), "bench", f"{suite}-{architecture}-{kind}")
    if not os.path.isdir(place):
        fetch_debian_tree(architecture, (suite,), packages, HostPath(place), progress=_silent)
    return place


def _silent(_text: str, _fraction: float | None) -> None:
    """Fetch quietly."""


@contextmanager
def served(setting: Setting, count: int) -> Iterator[tuple[str, ...]]:
    """Run distcc servers on this machine, and return them as ``--distcc`` takes them."""
    command = [setting.xbuild, "native", "serve", setting.tree, "--jobs", str(setting.jobs)]
    ports = [_FIRST_PORT + number for number in range(count)]
    processes = [
        subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
        for port in ports
    ]
    try:
        for port in ports:
            _await_port(port)
        yield tuple(f"127.0.0.1:{port}/{setting.jobs}" for port in ports)
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _await_port(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"bench: no distcc server on port {port}")


def measure(
    setting: Setting,
    projects: list[Project],
    archives: dict[str, Path],
    variants: list[str],
    rounds: int,
) -> dict[str, dict[str, Result]]:
    """Build every project in every variant, in turn, ``rounds`` times."""
    results: dict[str, dict[str, Result]] = {p.name: {} for p in projects}
    reference: dict[str, Path] = {}
    for number in range(rounds):
        for project in projects:
            archive = archives[project.package]
            for variant in variants:
                place = setting.place / f"{project.name}-{variant}"
                shutil.rmtree(place, ignore_errors=True)
                unpack(archive, project, place)
                seconds, cpu_seconds = build(setting, project, variant, place)
                result = results[project.name].setdefault(variant, Result([], []))
                result.seconds.append(seconds)
                result.cpu_seconds.append(cpu_seconds)
                if variant == "emulated" and number == 0:
                    reference[project.name] = setting.place / f"{project.name}-reference"
                    os.rename(place, reference[project.name])
                elif project.name in reference:
                    left = reference[project.name]
                    made, more = (list(made_files(p, archive)) for p in (left, place))
                    result.comparison = compare_builds(left, place, made, more)
                shutil.rmtree(place, ignore_errors=True)
                said = f"{project.name} {variant} {seconds:.2f} s, {cpu_seconds:.2f} s of processor"
                said += f" {result.comparison or ''}"
                print(said.rstrip(), file=sys.stderr, flush=True)
    return results


def build(setting: Setting, project: Project, variant: str, place: Path) -> tuple[float, float]:
    """Build once; return how many seconds that took, and how many of a processor.

    Raises SystemExit when it fails.
    """
    crosses = variant == "cross"
    prefix = f"{setting.triplet}-" if crosses else ""
    variables = {
        "CC": f"{prefix}gcc",
        "CXX": f"{prefix}g++",
        "AR": f"{prefix}ar",
        "RANLIB": f"{prefix}ranlib",
        "HOST": f"--host={setting.triplet}" if crosses else "",
        "JOBS": str(setting.jobs),
    }
    if crosses:
        variables["CROSS_PREFIX"] = prefix
    command = [setting.xbuild, "run", *run_options(setting, variant, project)]
    for name, value in variables.items():
        command += ["--setenv", f"{name}={value}"]
    command += ["--bind", f"{place}:{BUILD}", "--chdir", BUILD]
    command += [setting.cross if crosses else setting.tree, "--", "/bin/sh", "-c"]
    log = setting.place / f"{project.name}-{variant}.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, PRELUDE + project.build],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # Each process of a container is waited for: process 1 reaps what is left over.
        _, waited, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(waited)
        seconds = time.perf_counter() - began
    if process.returncode != 0:
        print(log.read_text("utf-8", "replace")[-3000:], file=sys.stderr)
        raise SystemExit(f"bench: {project.name} {variant}: exit status {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def run_options(setting: Setting, variant: str, project: Project) -> list[str]:
    """Return the options of ``xbuild run`` that make a variant."""
    if variant in ("emulated", "cross"):
        return []
    if variant == "fast":
        return ["--native=fast"]
    options = ["--native"]
    if variant.startswith("ccache"):
        cache = setting.place / f"ccache-{project.name}"
        if variant == "ccache-cold":
            shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(exist_ok=True)
        return [*options, f"--ccache={cache}"]
    if variant.startswith("distcc"):
        servers = setting.servers[: int(variant.removeprefix("distcc-"))]
        return [*options, "--distcc", ",".join(servers)]
    return options


def report(results: dict[str, dict[str, Result]], options: argparse.Namespace) -> int:
    """Print times, ratios and differences; write them to files; return 1 for a missed target."""
    load = os.getloadavg()
    missed = []
    print("".join((" " * 22, *(f"{unit:>11}{'emulated/':>11}{'/cross':>8}" for unit in UNITS))))
    for project, row in results.items():
        for name, result in row.items():
            shown = f"{project:<9}{name:<13}"
            for unit in UNITS:
                faster = _ratio(result, row.get("emulated"), unit, inverse=True)
                slower = _ratio(result, row.get("cross"), unit)
                ratios = [f"{value:.2f}" if value is not None else "" for value in (faster, slower)]
                median = statistics.median(result.times(unit))
                shown += f"{median:>11.2f}{ratios[0]:>11}{ratios[1]:>8}"
                missed += [f"{text} ({unit})" for text in _missed(project, name, faster, slower)]
            compared = f"   {result.comparison}" if result.comparison is not None else ""
            print(shown + compared)
    print(f"load averages at the end: {', '.join(f'{each:.1f}' for each in load)}")
    for project, row in results.items():
        for name, result in row.items():
            differing = result.comparison.differing if result.comparison is not None else {}
            for path, why in differing.items() if name != "cross" else ():
                print(f"{project} {name}: {path} differs: {why}")
    for text in missed:
        print(f"missed: {text}")
    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "architecture": options.architecture,
        "jobs": options.jobs,
        "load": load,
        "seconds": {p: {n: r.seconds for n, r in row.items()} for p, row in results.items()},
        "cpu_seconds": {
            p: {n: r.cpu_seconds for n, r in row.items()} for p, row in results.items()
        },
        "differing": {
            p: {n: r.comparison.differing for n, r in row.items() if r.comparison is not None}
            for p, row in results.items()
        },
    }
    (options.output / "native.json").write_text(json.dumps(document, indent=1) + "\n")
    times = {
        project: {name: statistics.median(result.cpu_seconds) for name, result in row.items()}
        for project, row in results.items()
    }
    title = f"Builds in a Debian {SUITE} {options.architecture} tree: processor time"
    (options.output / "native.svg").write_text(plot(times, title))
    return 1 if missed else 0


def _ratio(
    result: Result, other: Result | None, unit: str, *, inverse: bool = False
) -> float | None:
    """Return the median over the rounds of one variant's times of a ``unit`` over another's."""
    if other is None:
        return None
    pairs = zip(result.times(unit), other.times(unit), strict=True)
    return statistics.median(b / a if inverse else a / b for a, b in pairs)


def _missed(
    project: str, variant: str, faster: float | None, slower: float | None
) -> Iterator[str]:
    if variant not in TARGETS:
        return
    least, most = TARGETS[variant]
    if variant == "exact" and any(p.name == project and p.is_configure for p in PROJECTS):
        most = CONFIGURE_LIMIT
    if faster is not None and faster < least:
        yield f"{project} {variant} is {faster:.1f} times faster than emulation, not {least:.0f}"
    if slower is not None and slower > most:
        yield f"{project} {variant} takes {slower:.2f} times the cross-compile's, not {most}"


if __name__ == "__main__":
    sys.exit(main())
