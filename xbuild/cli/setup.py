"""``xbuild setup``: get static interpreters, from the host's packages or into the user's cache."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import click

from xbuild.binary.arch import ARCHES, Arch, arch_named, host_arch, runs_natively32
from xbuild.cli.output import note
from xbuild.cli.stages import Stages
from xbuild.emulation.faults import Fault, faults_of
from xbuild.emulation.interpreters import Interpreter, find_interpreter, verify_interpreter
from xbuild.emulation.packages import (
    install_command,
    present_managers,
    read_os_release,
    unattended_commands,
)
from xbuild.emulation.selection import interpreters_for
from xbuild.emulation.versions import parse_version
from xbuild.errors import HostUnable, InterpreterError, UsageError
from xbuild.source.qemu import Fetched, Wish, fetch_interpreters

SCHEMA = "xbuild.interpreters/1"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("architectures", nargs=-1, metavar="[ARCH]...")
@click.option("--version", metavar="VERSION", help="Into the cache: this one, e.g. 10 or 7.2.")
@click.option("--suite", metavar="SUITE", help="Into the cache: that of a suite of Debian's.")
@click.option("--cache", "to_cache", is_flag=True, help="Into the cache, even as root.")
@click.option("--yes", "-y", is_flag=True, help="Install without asking.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("--list", "is_list", is_flag=True, help="List what is there, with known faults.")
@click.option("--json", "as_json", is_flag=True, help="With --list: as JSON (see docs/json.md).")
def command(
    architectures: tuple[str, ...],
    version: str | None,
    suite: str | None,
    to_cache: bool,
    yes: bool,
    dry_run: bool,
    is_list: bool,
    as_json: bool,
) -> int:
    """Get static qemu-user for each ARCH, or for all that this host does not run itself.

    Root installs the host's package. Others have it fetched by apt, on Debian and Ubuntu, verified
    and unpacked into their cache, where runs find it; several versions may lie there side by
    side: xbuild run --interpreter arm64@10 TREE. Each is tried with a program before it counts.
    """
    arches = tuple(dict.fromkeys(arch_named(name) for name in architectures)) or _foreign()
    if as_json and not is_list:
        raise UsageError("--json goes with --list", "add --list, or leave it out")
    if is_list:
        return _print_list(arches, as_json=as_json)
    wish = _wish(version, suite)
    if to_cache or wish != Wish() or (os.geteuid() != 0 and _has_apt()):
        if dry_run:
            click.echo(_fetching_in_words(wish, arches))
            return 0
        with Stages() as stages:
            fetched = fetch_interpreters(wish, arches, stages.show)
        return _say_fetched(fetched)
    return _install(arches, architectures, ask=not yes, dry_run=dry_run)


def _wish(version: str | None, suite: str | None) -> Wish:
    if version is not None and not parse_version(version):
        raise UsageError(f"Not a version of qemu: {version!r}", "such as 10, 7.2 or 10.0.13")
    if suite is not None and not suite.replace("-", "").isalnum():
        raise UsageError(f"Not a suite of Debian's: {suite!r}", "such as bookworm or trixie")
    return Wish(suite or "", version or "")


def _foreign() -> tuple[Arch, ...]:
    native = (host_arch(), runs_natively32(host_arch()))
    return tuple(arch for arch in ARCHES if arch.is_emulated and arch not in native)


def _has_apt() -> bool:
    return "apt-get" in present_managers()


def _fetching_in_words(wish: Wish, arches: tuple[Arch, ...]) -> str:
    what = f"qemu {wish.version}" if wish.version else "static qemu-user"
    where = f"of Debian {wish.suite}" if wish.suite else "of this host's apt sources"
    where = (
        "of the first suite of Debian's that has it" if wish.version and not wish.suite else where
    )
    names = ", ".join(arch.common_name for arch in arches)
    return f"fetch {what} {where} by apt, unpack and try it in the cache for {names}"


def _say_fetched(done: Fetched) -> int:
    for text in done.refused:
        note(text)
    click.echo(
        f"qemu {done.version} ({done.package}) in {done.directory}: {', '.join(done.arches)}"
    )
    click.echo(f"to use it: xbuild run --interpreter {done.arches[0]}@{done.version} TREE")
    _warn(tuple(arch_named(name) for name in done.arches), done.version)
    return 0


def _warn(arches: tuple[Arch, ...], version: str | None) -> None:
    faults = dict.fromkeys(fault for arch in arches for fault in faults_of(arch, version))
    for fault in faults:
        note(f"known of qemu {version}: {fault.in_words()}: {fault.issue}")


def _install(arches: tuple[Arch, ...], named: tuple[str, ...], *, ask: bool, dry_run: bool) -> int:
    # A package manager has one package for all but on Gentoo and Alpine.
    only = arches[0] if len(named) == 1 else None
    commands = unattended_commands(only, read_os_release(), present_managers())
    if not commands:
        raise HostUnable(
            "Cannot install qemu-user: this host's package manager is not one that xbuild knows",
            "install a statically linked qemu-user, or name one with xbuild run --interpreter",
        )
    if dry_run:
        for each in commands:
            click.echo(shlex.join(each))
        return 0
    missing = [arch for arch in arches if _working(arch) is None] if named else list(arches)
    if named and not missing:
        return _say_present(arches)
    if os.geteuid() != 0:
        raise HostUnable(
            "Only root can install packages, and without root qemu can be fetched by apt alone",
            install_command(only),
        )
    if ask:
        _agree(commands[-1])
    for each in commands:
        status = subprocess.run(each, stdin=subprocess.DEVNULL, check=False).returncode
        if status != 0 and each is commands[-1]:
            raise HostUnable(
                f"{shlex.join(each)} failed with status {status}: see above",
                "mend what it says; or xbuild setup --cache, which needs apt alone",
            )
    return _say_present(arches)


def _agree(argv: tuple[str, ...]) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"This would run: {shlex.join(argv)}", "--yes agrees to it beforehand")
    click.confirm(f"Run {shlex.join(argv)}?", abort=True, err=True)


def _say_present(arches: tuple[Arch, ...]) -> int:
    """Try what is there now; fail where an architecture that was asked for has none."""
    working = {arch: _working(arch) for arch in arches}
    by_version: dict[str, list[Arch]] = {}
    for arch, found in working.items():
        if found is not None:
            by_version.setdefault(found.version or "of unknown version", []).append(arch)
    if not by_version:
        raise HostUnable(
            "There is still no static qemu-user on this host that works",
            "xbuild doctor says what is there; xbuild setup --cache fetches one",
        )
    for version, having in by_version.items():
        click.echo(f"qemu {version}: {', '.join(arch.common_name for arch in having)}")
        _warn(tuple(having), version)
    absent = [arch.common_name for arch in arches if working[arch] is None]
    if absent:
        note(f"none for {', '.join(absent)}")
    return 0


def _working(arch: Arch) -> Interpreter | None:
    try:
        return verify_interpreter(find_interpreter(arch))
    except InterpreterError:
        return None


def _print_list(arches: tuple[Arch, ...], *, as_json: bool) -> int:
    found = [each for arch in arches for each in interpreters_for(arch)]
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "interpreters": [_plain(f) for f in found]}))
        return 0
    having: dict[Fault, list[str]] = {}
    for each in found:
        name = f"{each.arch.common_name}@{each.version or '?'}"
        click.echo(f"{name}  {each.path}")
        for fault in faults_of(each.arch, each.version):
            having.setdefault(fault, []).append(name)
    for fault, names in having.items():
        which = "all" if len(names) == len(found) > 1 else ", ".join(names)
        click.echo(f"known of {which}: {fault.kind}: {fault.in_words()}: {fault.issue}")
    return 0


def _plain(found: Interpreter) -> dict[str, object]:
    faults = faults_of(found.arch, found.version)
    return {
        "architecture": found.arch.name,
        "version": found.version,
        "path": found.path,
        "faults": [{"what": f.kind, "summary": f.in_words(), "issue": f.issue} for f in faults],
    }
