"""``xbuild ci matrix``: packages shared out over jobs, in the form that a CI service takes."""

from __future__ import annotations

import json
import os
import sys

import click

from xbuild.binary.arch import arch_named
from xbuild.cli.ci_marks import service_of
from xbuild.cli.output import note
from xbuild.errors import UsageError
from xbuild.pipes import with_patience
from xbuild.plan.sharding import Job, Package, checked_name, make_jobs, parse_packages
from xbuild.record import replace

_MOST_JOBS = {"github": 256, "gitlab": 200}  # docs.github.com, "Usage limits"; docs.gitlab.com
_HIDDEN = ".xbuild-matrix"  # a job of GitLab's that others extend


@click.command()
@click.argument("packages", nargs=-1, metavar="[PACKAGE...]")
@click.option(
    "--file",
    "-f",
    "path",
    metavar="FILE|-",
    type=click.Path(allow_dash=True),
    help="Read packages from lines NAME [WEIGHT].",
)
@click.option("--arch", "arches", multiple=True, metavar="ARCH", help="For this one; repeatable.")
@click.option(
    "--shards", type=click.IntRange(1, 256), default=4, metavar="N", help="At most so many. [4]"
)
@click.option(
    "--runner",
    "runners",
    multiple=True,
    metavar="[ARCH=]LABEL",
    help="On these runners, in turn; repeatable.",
)
@click.option(
    "--for",
    "choice",
    type=click.Choice(["auto", "github", "gitlab"]),
    default="auto",
    help="The service [by its variables, else github].",
)
def command(
    packages: tuple[str, ...],
    path: str | None,
    arches: tuple[str, ...],
    shards: int,
    runners: tuple[str, ...],
    choice: str,
) -> None:
    """Print a job matrix that shares PACKAGEs out over jobs and architectures.

    For GitHub it is one line, for fromJSON; for GitLab a file to include, whose job .xbuild-matrix
    others extend. Weights, such as the seconds that each took last time, make shares even.
    """
    service = "gitlab" if service_of(choice, os.environ) == "gitlab" else "github"
    wanted = tuple(dict.fromkeys(arches))  # as they were said: armhf and armel are one machine
    if not wanted:
        raise UsageError("No architecture was named", "--arch arm64, and again for more")
    found = _without_doubles((*map(Package, map(checked_name, packages)), *_read(path)))
    if not found:
        raise UsageError("There are no packages to share out", "name them, or a --file with them")
    for name in wanted:
        arch_named(name)
    jobs = make_jobs(found, wanted, shards, [_runner(text, wanted) for text in runners])
    most = _MOST_JOBS[service]
    if len(jobs) > most:
        raise UsageError(
            f"{len(jobs)} jobs are more than a matrix may have there ({most})",
            f"--shards {most // len(wanted)} at most, for {len(wanted)} architectures",
        )
    click.echo(_for_gitlab(jobs) if service == "gitlab" else _for_github(jobs))


def _read(path: str | None) -> tuple[Package, ...]:
    if path is None:
        return ()
    try:
        if path == "-":
            return parse_packages(sys.stdin.read(), "standard input")
        with open(path, encoding="utf-8", opener=with_patience) as file:
            return parse_packages(file.read(), path)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no text: {error.reason}", "a file with lines NAME [WEIGHT] in UTF-8"
        ) from error
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror}",
            "name a file with lines NAME [WEIGHT], or - for standard input",
        ) from error


def _without_doubles(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Return each package once, where it stood first, with the weight that it had last."""
    found: dict[str, Package] = {}
    for package in packages:
        if package.name in found:
            note(f"{package.name} is there more than once")
        first = found.setdefault(package.name, package)
        found[package.name] = replace(first, weight=package.weight)
    return tuple(found.values())


def _runner(text: str, arches: tuple[str, ...]) -> tuple[str | None, str]:
    arch, equals, label = text.partition("=")
    if not equals:
        arch, label = "", text
    if not label or not label.isprintable() or (equals and not arch):
        raise UsageError(f"Not a runner: {text!r}", "LABEL, or ARCH=LABEL for one architecture")
    if arch and arch not in arches:
        raise UsageError(
            f"--runner {text}: there is no --arch {arch}",
            f"add --arch {arch}, or leave the runner out",
        )
    return arch or None, label


def _for_github(jobs: tuple[Job, ...]) -> str:
    return json.dumps({"include": [_row(job) for job in jobs]})


def _for_gitlab(jobs: tuple[Job, ...]) -> str:
    rows = [{key.upper(): str(value) for key, value in _row(job).items()} for job in jobs]
    return json.dumps({_HIDDEN: {"parallel": {"matrix": rows}}}, indent=2)  # JSON is YAML as well


def _row(job: Job) -> dict[str, str | int]:
    row: dict[str, str | int] = {
        "arch": job.arch,
        "shard": job.shard,
        "shards": job.shards,
        "packages": " ".join(job.packages),
    }
    return row if job.runner is None else row | {"runner": job.runner}
