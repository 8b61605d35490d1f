"""Resolve and download packages with apt-get, in a state of its own.

The host's apt is the program, the host's own state is not used: lists, caches, status and sources
live in a directory of ours, hooks and preferences of the host do not run or apply (apt.conf(5)).
Signatures are checked as ever. Works as any user, and for any architecture.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from xbuild.errors import MirrorUnavailable, PackageUnavailable, SourceError
from xbuild.record import HostPath, Record
from xbuild.source.mirror import Mirror

_Answer = TypeVar("_Answer")
_Alternative = TypeVar("_Alternative")
Progress = Callable[[str, float | None], None]
"""Told of each stage: one line of text, and how much of it is done (0 to 1) where known."""

RETRY_DELAYS_S = (2.0, 8.0, 20.0)
"""Pauses between attempts: a mirror out of step with itself is usually whole within a minute."""

_OFFLINE = (
    "Temporary failure resolving",
    "Could not resolve",
    "Network is unreachable",
    "Could not connect",
    "Cannot initiate the connection",
    "connection timed out",
)
# "Wrote only" is tar's, of a file system that filled up in the middle of a block.
_NO_ROOM = ("enough free space", "No space left on device", "Disk quota exceeded", "Wrote only ")
_UNKNOWN_HINT = "is that its name in that suite, and is it there for that architecture?"
_UNKNOWN_PACKAGE = re.compile(r"^E: (Unable to locate package .*|Package '.*' has no .*)$", re.M)
_NO_SUCH_SUITE = "does not have a Release file"
_NO_ARCHITECTURE = "did not find any indices for architecture"  # mmdebstrap's
_NOT_FOUND = re.compile(r"^\s+404 ", re.MULTILINE)
_OTHER_KEY = "NO_PUBKEY"
_HOST_SETTINGS = re.compile(
    r"^Acquire::(?:https?::|ForceIPv[46] |Check-Date |Check-Valid-Until |Max-ValidTime ).*;$", re.M
)


class Apt(Record):
    """One architecture of one suite: ``directory`` holds lists and sources, ``pool`` the .debs.

    Without a ``mirror`` the host's own sources serve, whatever the suites in them, with its own
    keys and preferences. ``also`` are further archives as (URI, suite), signed with the mirror's
    keyring: updates.
    """

    directory: HostPath
    pool: HostPath
    architecture: str
    suite: str
    mirror: Mirror | None
    also: tuple[tuple[str, str], ...] = ()


def download(
    alternatives: tuple[Apt, ...], packages: tuple[str, ...], progress: Progress
) -> tuple[HostPath, ...]:
    """Download ``packages`` and what they depend on (no recommendations); return the .deb files.

    The first alternative that serves them all wins. When none does (a mirror out of step with
    itself, a broken connection), tries again, with pauses. Raises PackageUnavailable when a suite
    has no such package, SourceError for a full disk, MirrorUnavailable for all else.
    """
    _configure(alternatives)
    return persist(alternatives, lambda apt: _download_once(apt, packages, progress), progress)


def available_versions(
    alternatives: tuple[Apt, ...], packages: tuple[str, ...], progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Return the versions that are offered, newest first, by package; without those unknown.

    Of the first alternative that answers; tries again as ``download`` does. Raises
    MirrorUnavailable.
    """
    _configure(alternatives)
    return persist(alternatives, lambda apt: _versions_once(apt, packages, progress), progress)


def _configure(alternatives: tuple[Apt, ...]) -> None:
    for apt in alternatives:
        _write_configuration(apt)


def persist(
    alternatives: tuple[_Alternative, ...],
    ask: Callable[[_Alternative], _Answer],
    progress: Progress,
) -> _Answer:
    """Return the first alternative's answer; ask again, with pauses, while all are unavailable.

    Raises MirrorUnavailable, at once where asking again is of no use.
    """
    for pause in (*RETRY_DELAYS_S, None):
        failures: list[MirrorUnavailable] = []
        untold = ""
        for alternative in alternatives:
            if untold:
                progress(untold, None)
            try:
                return ask(alternative)
            except MirrorUnavailable as error:
                failures.append(error)
                untold = error.message
            except PackageUnavailable as error:
                # What the one before could not serve now may be more than this one ever has.
                if not failures:
                    raise
                untold = error.message
        is_over = pause is None or all(failure.is_lasting for failure in failures)
        if not is_over or untold != failures[0].message:
            progress(untold, None)
        if is_over or pause is None:
            raise failures[0]
        progress(f"trying again in {pause:.0f} s", None)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _versions_once(
    apt: Apt, packages: tuple[str, ...], progress: Progress
) -> dict[str, tuple[str, ...]]:
    _update(apt, progress)
    found: dict[str, list[str]] = {}
    for line in _run(apt, "apt-cache", ("madison", *packages))[1].splitlines():
        name, _, rest = line.partition("|")
        version = rest.partition("|")[0].strip()
        if version and version not in found.setdefault(name.strip(), []):
            found[name.strip()].append(version)
    return {name: tuple(versions) for name, versions in found.items()}


def _update(apt: Apt, progress: Progress) -> None:
    progress(f"reading the package lists of {apt.suite} {apt.architecture}", None)
    # Without Error-Mode=any, update exits 0 when every list failed (apt-get(8)). Of the host's own
    # sources some may be third parties' and broken: what was asked for is there, or it is not.
    mode = ("-o", "APT::Update::Error-Mode=any") if apt.mirror is not None else ()
    _apt_get(apt, "update", *mode)


def _download_once(apt: Apt, packages: tuple[str, ...], progress: Progress) -> tuple[HostPath, ...]:
    what = f"{apt.suite} {apt.architecture}"
    _update(apt, progress)
    empty = os.path.join(apt.directory, "empty")
    listed = _apt_get(
        apt, "install", *packages, "-o", f"Dir::Cache::archives={empty}", "--print-uris"
    )
    names, size = _parse_uris(listed)
    progress(f"packages of {what}: {len(names)}, {size / 1e6:.1f} MB", 0.0)
    _apt_get(apt, "install", *packages, "--download-only", progress=progress)
    return tuple(HostPath(os.path.join(apt.pool, name)) for name in names)


def _parse_uris(listing: str) -> tuple[tuple[str, ...], int]:
    rows = [line.split() for line in listing.splitlines() if line.startswith("'")]
    return tuple(row[1] for row in rows), sum(int(row[2]) for row in rows)


def _apt_get(apt: Apt, *arguments: str, progress: Progress | None = None) -> str:
    status = ["-o", "APT::Status-Fd=1"] if progress else []
    returned, output = _run(apt, "apt-get", ("-q", "-y", *status, *arguments), progress)
    if returned != 0:
        raise explain_output(
            output,
            what=f"{apt.suite} for {apt.architecture}",
            archive=_archive_of(apt),
            place=apt.pool,
            action=f"apt-get {arguments[0]}",
        )
    return output


def _run(
    apt: Apt, program: str, arguments: tuple[str, ...], progress: Progress | None = None
) -> tuple[int, str]:
    """Run a program of apt in the state of ours; return its exit status and what it wrote."""
    environment = {
        **os.environ,
        "APT_CONFIG": os.path.join(apt.directory, "apt.conf"),
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    with subprocess.Popen(
        [program, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            lines = _heard(process.stdout, progress)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, "".join(lines)


def _heard(output: Iterable[str], progress: Progress | None) -> list[str]:
    lines = []
    for line in output:
        if progress and line.startswith("dlstatus:"):
            _, _, percent, text = line.rstrip().split(":", 3)
            progress(text, float(percent) / 100)
        else:
            lines.append(line)
    return lines


def explain_output(
    output: str, *, what: str, archive: str, place: HostPath, action: str
) -> SourceError:
    """Return the error that apt's words tell of: of a suite, an archive, the place for packages."""
    unknown = dict.fromkeys(found[1] for found in _UNKNOWN_PACKAGE.finditer(output))
    if unknown:
        return PackageUnavailable(f"Cannot fetch {what}: {'; '.join(unknown)}", _UNKNOWN_HINT)
    reasons = [line[3:] for line in output.splitlines() if line.startswith(("E: ", "W: "))]
    reason = reasons[0] if reasons else output.strip()[-200:]
    if lacks_room := lack_of_room(output):
        return SourceError(f"Cannot keep packages in {place}: {lacks_room}", "make room there")
    if any(sign in output for sign in _OFFLINE):
        message = f"Cannot reach {archive}: {reason}"
        return MirrorUnavailable(message, "check the network", is_lasting=True)
    hint, is_lasting = _why_not_served(output)
    if _NO_ARCHITECTURE in output:
        reason = "it lists no packages of that architecture there"
    return MirrorUnavailable(
        f"{archive[0].upper()}{archive[1:]} does not serve {what} ({action}): {reason}",
        hint,
        is_lasting=is_lasting,
    )


def _why_not_served(output: str) -> tuple[str, bool]:
    """Return a hint, and whether asking again soon is of no use."""
    if _NO_ARCHITECTURE in output:
        return ("a newer suite may have it; or name another architecture with --arch", True)
    if _OTHER_KEY in output:
        return ("name a keyring with its key, where you trust that; else another mirror", True)
    if _NO_SUCH_SUITE in output and _NOT_FOUND.search(output):
        return (
            "is that the suite's name? has the mirror all of it, with updates? or name another",
            True,
        )
    return ("a mirror in the middle of an update is usually whole again after some minutes", False)


def lack_of_room(output: str) -> str:
    """Return the line that tells of a full disk, "" where none does."""
    lines = (line for line in output.splitlines() if any(sign in line for sign in _NO_ROOM))
    return next((line.removeprefix("E: ").strip() for line in lines), "")


def _archive_of(apt: Apt) -> str:
    if apt.mirror is None:
        return "the archives in this host's apt sources"
    return f"the {apt.mirror.distribution} mirror {apt.mirror.uri}"


def _write_configuration(apt: Apt) -> None:
    here = apt.directory
    for name in ("state/lists/partial", "cache", "empty/partial"):
        os.makedirs(os.path.join(here, name), exist_ok=True)
    os.makedirs(os.path.join(apt.pool, "partial"), exist_ok=True)
    _write(os.path.join(here, "status"), "")
    settings = {
        "Dir::State": f"{here}/state",
        "Dir::State::status": f"{here}/status",
        "Dir::Cache": f"{here}/cache",
        "Dir::Cache::archives": apt.pool,
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": f"{here}/empty",
        **_sources(apt),
        "APT::Architecture": apt.architecture,
        "APT::Architectures": apt.architecture,
        "APT::Install-Recommends": "false",
        # The directories belong to whoever called us: _apt could not reach them.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
    }
    text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    _write(os.path.join(here, "apt.conf"), host_settings() + text)


def _sources(apt: Apt) -> dict[str, str]:
    """Write down where packages come from, and return the settings that say so."""
    if apt.mirror is None:
        return {}
    here = apt.directory
    archives = ((apt.mirror.uri, apt.suite), *apt.also)
    lines = [
        f"deb [signed-by={apt.mirror.keyring}] {uri} {suite} {apt.mirror.components}"
        for uri, suite in archives
    ]
    _write(os.path.join(here, "sources.list"), "\n".join((*lines, "")))
    return {
        "Dir::Etc::sourcelist": f"{here}/sources.list",
        "Dir::Etc::sourceparts": f"{here}/empty",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": f"{here}/empty",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": f"{here}/empty",
    }


def host_settings() -> str:
    """Return the host's own words on reaching its mirror: proxies, certificates, clock checks."""
    answer = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return "".join(line + "\n" for line in _HOST_SETTINGS.findall(answer.stdout))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
