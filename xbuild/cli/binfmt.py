"""``xbuild binfmt``: this host's binfmt_misc entries, listed, verified, added and removed.

Containers do not need it: by default they have a binfmt_misc of their own. It is for programs
outside of containers, and for kernels before 6.7.
"""

from __future__ import annotations

import json

import click

from xbuild.binary.arch import Arch, arch_named
from xbuild.emulation.hostwide import (
    Registered,
    arches_to_register,
    names_of_ours,
    register_host_wide,
    unregister_host_wide,
)
from xbuild.emulation.registry import (
    BINFMT_DIRECTORY,
    Entry,
    is_registry_enabled,
    persistent_names,
    read_entries,
)
from xbuild.emulation.rules import FLAGS, NAME_PREFIX
from xbuild.emulation.verification import (
    Fails,
    Finding,
    Untested,
    Verification,
    Works,
    matched_arches,
    verify_entries,
    verify_registration,
)
from xbuild.record import HostPath, assert_never

LIST_SCHEMA = "xbuild.binfmt/1"
VERIFY_SCHEMA = "xbuild.binfmt-verify/1"
_EXIT_FAILS = 1


TYPE_CHECKING = False
if TYPE_CHECKING:
    _ParamType = click.ParamType[Arch]
else:
    _ParamType = click.ParamType  # not generic before click 8.4


class ArchType(_ParamType):
    """An architecture by qemu's, Debian's or uname's name."""

    name = "arch"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Arch:
        """Look the name up. Raises UnknownArchitectureName, which main() tells of."""
        del param, ctx
        return arch_named(value)


ARCHES = click.argument("arches", metavar="[ARCH]...", nargs=-1, type=ArchType())
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, verify and change this host's binfmt_misc entries."""


@command.command("list", short_help="List all entries, and try each")
@AS_JSON
def list_entries(as_json: bool) -> int:
    """List all entries, newest first, and run a program to see whether each one works."""
    findings = verify_entries()
    is_enabled = is_registry_enabled()
    if as_json:
        click.echo(json.dumps(_listing(findings, is_enabled), indent=2))
        return 0
    if not is_enabled:
        click.echo("xbuild: binfmt_misc as a whole is disabled", err=True)
    heading = ("ENTRY", "ARCH", "FLAGS", "INTERPRETER", "VERDICT")
    rows = [_row(finding) for finding in findings]
    _print_table([heading, *rows] if rows else [])
    return 0


@command.command(short_help="Run a tiny program of each architecture")
@ARCHES
@AS_JSON
def verify(arches: tuple[Arch, ...], as_json: bool) -> int:
    """Run a tiny program of each ARCH; without ARCH, of all that some entry matches.

    Exits with 1 when one of them does not run.
    """
    wanted = arches or matched_arches(read_entries())
    results = [(arch, verify_registration(arch)) for arch in wanted]
    if as_json:
        found = [{"name": arch.name, **_verdict(result)} for arch, result in results]
        click.echo(json.dumps({"schema": VERIFY_SCHEMA, "architectures": found}, indent=2))
    else:
        _print_table([(arch.common_name, _in_words(result)) for arch, result in results])
    return 0 if all(isinstance(result, Works) for _, result in results) else _EXIT_FAILS


@command.command("register", short_help="Let this host run programs of an architecture")
@ARCHES
@click.option("--all", "is_all", is_flag=True, help="All that have an interpreter and need one.")
@click.option("--interpreter", metavar="PATH", help="Use this one; for a single ARCH.")
@click.option("--persist", is_flag=True, help="Write a file to /etc/binfmt.d, too.")
@click.option(
    "--credential",
    is_flag=True,
    help="Let foreign setuid programs have their owner's privileges (flag C). Any of them is"
    " then a way to become its owner, as qemu is not made to withstand its user.",
)
def register_entries(
    arches: tuple[Arch, ...],
    is_all: bool,
    interpreter: str | None,
    persist: bool,
    credential: bool,
) -> int:
    """Let this host run programs of each ARCH, through an entry named xbuild-ARCH.

    The interpreter and the entry are tried with a program of that architecture; an entry that
    does not work is not left behind. Entries of others are never touched.
    """
    _check_choice(arches, is_all)
    if interpreter is not None and len(arches) != 1:
        raise click.UsageError("--interpreter goes with a single ARCH.")
    for arch in arches or arches_to_register():
        done = register_host_wide(
            arch,
            override=HostPath(interpreter) if interpreter is not None else None,
            with_credentials=credential,
            is_persistent=persist,
        )
        click.echo(_registered(done))
    return 0


@command.command("unregister", short_help="Remove what register added")
@ARCHES
@click.option("--all", "is_all", is_flag=True, help="All entries named xbuild-*.")
@click.option("--persist", is_flag=True, help="Remove the file in /etc/binfmt.d, too.")
def unregister_entries(arches: tuple[Arch, ...], is_all: bool, persist: bool) -> int:
    """Remove the entry xbuild-ARCH of each ARCH. Entries of others are never touched."""
    _check_choice(arches, is_all)
    chosen = tuple(NAME_PREFIX + arch.name for arch in arches)
    for name in chosen or names_of_ours(with_files=persist):
        done = unregister_host_wide(name, with_file=persist)
        parts = ("entry", done.had_entry), ("file in /etc/binfmt.d", done.had_file)
        click.echo(f"removed {name}: {' and '.join(part for part, had in parts if had)}")
        if name in persistent_names():
            click.echo(f"xbuild: {name} comes back at boot: --persist removes its file", err=True)
    return 0


def _check_choice(arches: tuple[Arch, ...], is_all: bool) -> None:
    if bool(arches) == is_all:
        raise click.UsageError("Name one ARCH or more, or --all.")


def _registered(done: Registered) -> str:
    rule, interpreter = done.registration, done.interpreter
    version = f" {interpreter.version}" if interpreter.version else ""
    kept = f", kept in {done.file}" if done.file else ", until the next boot"
    return f"registered {rule.name}: {rule.interpreter}{version}, flags {rule.flags}{kept}"


def _row(finding: Finding) -> tuple[str, ...]:
    entry = finding.entry
    arch = finding.arch.common_name if finding.arch else "-"
    flags = _flags(entry) or "-"
    return entry.name, arch, flags, entry.interpreter, _in_words(finding.verification)


def _flags(entry: Entry) -> str:
    return "".join(flag for flag in FLAGS if flag in entry.flags)


def _in_words(verification: Verification) -> str:
    match verification:
        case Works():
            words = "works"
        case Fails(reason):
            words = f"fails: {reason}"
        case Untested(reason):
            words = f"untested: {reason}"
        case _:
            assert_never(verification)
    return words


def _verdict(verification: Verification) -> dict[str, str | None]:
    verdict, _, reason = _in_words(verification).partition(": ")
    return {"verdict": verdict, "reason": reason or None}


def _listing(findings: tuple[Finding, ...], is_enabled: bool) -> dict[str, object]:
    persistent = persistent_names()
    entries = dict.fromkeys(finding.entry for finding in findings)
    return {
        "schema": LIST_SCHEMA,
        "directory": BINFMT_DIRECTORY,
        "enabled": is_enabled,
        "entries": [
            {
                "name": entry.name,
                "enabled": entry.enabled,
                "interpreter": entry.interpreter,
                "flags": list(_flags(entry)),
                "offset": entry.offset,
                "magic": entry.magic.hex(),
                "mask": entry.mask.hex(),
                "extension": entry.extension,
                "persistent": entry.name in persistent,
                "architectures": [
                    {"name": finding.arch.name, **_verdict(finding.verification)}
                    for finding in findings
                    if finding.entry == entry and finding.arch is not None
                ],
            }
            for entry in entries
        ],
    }


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Print columns as wide as their widest cell; the last one is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *cells, last in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo("  ".join((*padded, last)))
