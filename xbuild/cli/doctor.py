"""``xbuild doctor``: what this host can do, and what to do about the rest."""

from __future__ import annotations

import json
import os
import sys

import click

from xbuild.cli.output import visible
from xbuild.plan.host import Host
from xbuild.record import HostPath, assert_never
from xbuild.sandbox.probes import Circumstances, Finding, examine_host
from xbuild.sandbox.rehearsal import Rehearsal, rehearse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.emulate import Emulation

SCHEMA = "xbuild.doctor/1"
TARGET_CHECK = "target"
_EXIT_CANNOT_RUN = 1
_STYLES = {"ok": "green", "missing": "red", "faulty": "yellow", "n/a": "dim"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
def command(target: str | None, as_json: bool) -> int:
    """Find out what this host can do, by doing it; with TARGET, whether and how it runs here.

    Nothing is changed and nothing of TARGET is executed. Exits with 1 when TARGET cannot be run.
    """
    place = _place_of(target or ".")
    findings = examine_host(Circumstances(Host.probe(), place, is_target=target is not None))
    rehearsal = rehearse(HostPath(target)) if target is not None else None
    if as_json:
        click.echo(json.dumps(_document(findings, rehearsal), indent=2))
    else:
        rows = list(findings)
        if rehearsal is not None:
            rows.append(_row_of(rehearsal))
        _print_rows(rows)
        for text in rehearsal.notes if rehearsal is not None else ():
            click.echo(f"note: {visible(text)}")
    return _EXIT_CANNOT_RUN if rehearsal is not None and not rehearsal.can_run else 0


def _place_of(target: str) -> HostPath:
    """Return the directory whose file system the target is on."""
    try:
        path = os.path.realpath(target)
    except FileNotFoundError:
        return HostPath("/")  # the working directory is gone
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return HostPath(path)


def _row_of(rehearsal: Rehearsal) -> Finding:
    name = rehearsal.target
    if not rehearsal.can_run:
        fix = rehearsal.fix or "name a directory that holds a root filesystem"
        return Finding(TARGET_CHECK, "missing", rehearsal.problem, fix)
    ways = "; ".join(_way_in_words(emulation) for emulation in rehearsal.emulations)
    found = rehearsal.survey
    what = found.distribution.pretty_name if found is not None and found.distribution else ""
    untried = "" if rehearsal.was_tried else "; not tried, for want of a test program"
    return Finding(
        TARGET_CHECK, "ok", f"{name}{f' ({what})' if what else ''} runs: {ways}{untried}"
    )


def _way_in_words(emulation: Emulation) -> str:  # noqa: RET503 - the ways are closed
    name = emulation.arch.common_name
    match emulation.way:
        case "native":
            return f"{name} natively"
        case "native32":
            return f"{name} natively, in 32-bit mode"
        case "private":
            interpreter = emulation.interpreter
            assert interpreter is not None
            version = f" {interpreter.version}" if interpreter.version else ""
            return f"{name} by {interpreter.path}{version}, in a registry of its own"
        case "host":
            assert emulation.entry is not None
            return f"{name} by the host's entry {emulation.entry.name}"
        case "missing":
            return f"{name} not: {emulation.problem}"
        case _:
            assert_never(emulation.way)


def _print_rows(rows: list[Finding]) -> None:
    if sys.stdout.isatty():
        _print_table(rows)
        return
    widths = [max(len(getattr(row, field)) for row in rows) for field in ("check", "state")]
    for row in rows:
        label = f"{row.check:<{widths[0]}}  {row.state:<{widths[1]}}  "
        click.echo(label + visible(row.detail))
        for line in row.fix.splitlines():
            click.echo(f"{'':<{len(label)}}fix: {visible(line)}")


def _print_table(rows: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for row in rows:
        detail = Text(visible(row.detail))
        for line in row.fix.splitlines():
            detail.append(f"\nfix: {visible(line)}", style="bold")
        table.add_row(row.check, Text(row.state, style=_STYLES[row.state]), detail)
    Console(file=sys.stdout, highlight=False).print(table)


def _document(findings: tuple[Finding, ...], rehearsal: Rehearsal | None) -> dict[str, object]:
    checks = [
        {"check": f.check, "state": f.state, "detail": f.detail, "fix": f.fix or None}
        for f in findings
    ]
    target = _target(rehearsal) if rehearsal is not None else None
    return {"schema": SCHEMA, "checks": checks, "target": target}


def _target(rehearsal: Rehearsal) -> dict[str, object]:
    found = rehearsal.survey
    distribution = found.distribution if found is not None else None
    return {
        "path": rehearsal.target,
        "kind": found.kind if found is not None else None,
        "distribution": distribution.pretty_name if distribution is not None else None,
        "can_run": rehearsal.can_run,
        "tried": rehearsal.was_tried,
        "problem": rehearsal.problem or None,
        "fix": rehearsal.fix or None,
        "architectures": [_architecture(emulation) for emulation in rehearsal.emulations],
        "notes": list(rehearsal.notes),
    }


def _architecture(emulation: Emulation) -> dict[str, object]:
    interpreter, entry = emulation.interpreter, emulation.entry
    return {
        "name": emulation.arch.name,
        "way": emulation.way,
        "interpreter": interpreter.path if interpreter is not None else None,
        "version": interpreter.version if interpreter is not None else None,
        "entry": entry.name if entry is not None else None,
        "problem": emulation.problem or None,
    }
