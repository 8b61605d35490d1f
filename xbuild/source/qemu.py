"""Static interpreters of any Debian or Ubuntu release, fetched by apt into the user's cache.

Nothing is installed and no root is needed: apt resolves, downloads and verifies the package
(``source.apt``), dpkg-deb unpacks it, and each interpreter has run a program of its architecture
before it is kept. What is kept, and where, is ``emulation.provisioned``'s.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile

from xbuild.binary.arch import Arch, host_arch
from xbuild.emulation.interpreters import Interpreter, verify_interpreter
from xbuild.emulation.provisioned import CACHE_NAME
from xbuild.emulation.versions import is_asked_for, package_version
from xbuild.errors import (
    DamagedPackage,
    InterpreterError,
    InterpreterMissing,
    PackageUnavailable,
    SourceError,
)
from xbuild.record import HostPath, Record
from xbuild.source.apt import Apt, Progress, available_versions, download
from xbuild.source.cache import cache_directory, locked, work_directory
from xbuild.source.mirror import find_mirrors

SUITES = ("bookworm", "trixie", "forky", "sid", "bullseye")
"""Debian's suites, in the order in which a version is looked for in them."""

_PACKAGES = ("qemu-user", "qemu-user-static")
_USER_IS_STATIC = (9, 1)  # the version from which on the plain package has static programs
_PROGRAM = re.compile(r"(?:\./)?usr/bin/qemu-([a-z0-9_]+?)(-static)?")
_ORIGIN = "origin.json"


class Wish(Record):
    """Which release: of a Debian ``suite``, or a ``version`` by its first numbers; "" for any.

    With neither it is what the host's own apt sources offer.
    """

    suite: str = ""
    version: str = ""


class Fetched(Record):
    """What is in the cache now: ``refused`` are those that did not work, with why."""

    version: str
    package: str
    directory: HostPath
    arches: tuple[str, ...]
    refused: tuple[str, ...]


class _Offer(Record):
    apt: tuple[Apt, ...]
    package: str
    version: str


def fetch_interpreters(wish: Wish, arches: tuple[Arch, ...], progress: Progress) -> Fetched:
    """Fetch the interpreters for ``arches`` and keep them in the cache, beside other versions.

    Raises SourceError: PackageUnavailable where no suite offers what is wished for,
    MirrorUnavailable, DamagedPackage; InterpreterMissing where the package has none that works.
    """
    place = HostPath(os.path.join(cache_directory(), CACHE_NAME))
    os.makedirs(place, mode=0o700, exist_ok=True)
    with locked(place, progress), work_directory(place) as work:
        offer = _find_offer(wish, work, progress)
        debs = download(offer.apt, (f"{offer.package}={offer.version}",), progress)
        deb = next(d for d in debs if os.path.basename(d).startswith(f"{offer.package}_"))
        made = HostPath(os.path.join(work, "made"))
        os.mkdir(made, 0o755)
        progress(f"unpacking {os.path.basename(deb)}", None)
        _unpack(deb, {arch.name for arch in arches}, made)
        return _publish(offer, arches, made, place, progress)


def _find_offer(wish: Wish, work: HostPath, progress: Progress) -> _Offer:
    if not wish.suite and not wish.version:
        found = _offers((_of_host(work),), progress)
        return _chosen(found, wish, "this host's apt sources")
    seen = []
    for suite in (wish.suite,) if wish.suite else SUITES:
        found = _offers(_of_suite(suite, work), progress)
        if wish.suite:
            return _chosen(found, wish, suite)
        fitting = [each for each in found if is_asked_for(_numbers(each), wish.version)]
        if fitting:
            return fitting[0]
        seen += [f"{suite} has {_numbers(each)}" for each in found[:1]]
    raise PackageUnavailable(
        f"No suite of Debian offers qemu {wish.version}: {', '.join(seen)}",
        "name one of these versions",
    )


def _chosen(found: tuple[_Offer, ...], wish: Wish, where: str) -> _Offer:
    fitting = [each for each in found if is_asked_for(_numbers(each), wish.version)]
    if fitting:
        return fitting[0]
    offered = ", ".join(_numbers(each) for each in found) or "none"
    raise PackageUnavailable(
        f"No static qemu-user {wish.version}".rstrip() + f" in {where}: {offered} there",
        f"xbuild setup --suite takes any of Debian's: {', '.join(SUITES)}",
    )


def _offers(alternatives: tuple[Apt, ...], progress: Progress) -> tuple[_Offer, ...]:
    """Return the packages that have static interpreters, the newest first."""
    offered = available_versions(alternatives, _PACKAGES, progress)
    found = [
        _Offer(alternatives, package, version)
        for package in _PACKAGES
        for version in offered.get(package, ())
        if (package == "qemu-user") == (package_version(version) >= _USER_IS_STATIC)
    ]
    return tuple(sorted(found, key=lambda each: package_version(each.version), reverse=True))


def _numbers(offer: _Offer) -> str:
    return ".".join(str(number) for number in package_version(offer.version))


def _of_host(work: HostPath) -> Apt:
    own = host_arch().debian
    assert own is not None
    return Apt(_state(work, "host"), _pool(work), own, "this host's release", None)


def _of_suite(suite: str, work: HostPath) -> tuple[Apt, ...]:
    own = host_arch().debian
    assert own is not None
    return tuple(
        Apt(_state(work, f"{suite}-{number}"), _pool(work), own, suite, mirror)
        for number, mirror in enumerate(find_mirrors())
    )


def _state(work: HostPath, name: str) -> HostPath:
    return HostPath(os.path.join(work, f"apt-{name}"))


def _pool(work: HostPath) -> HostPath:
    return HostPath(os.path.join(work, "pool"))


def _unpack(deb: HostPath, wanted: set[str], destination: HostPath) -> None:
    """Write the interpreters for the architectures ``wanted``, under qemu's own names."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    program = _PROGRAM.fullmatch(member.name)
                    if program and program[1] in wanted and member.isreg():
                        _write_program(archive, member, f"{destination}/qemu-{program[1]}")
        except tarfile.TarError as error:
            process.kill()
            raise _damaged(deb) from error
        except OSError as error:
            process.kill()
            raise SourceError(
                f"Cannot unpack {deb}: {error.strerror}", "make room there"
            ) from error
    if process.returncode != 0:
        raise _damaged(deb)


def _write_program(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    content = archive.extractfile(member)
    assert content is not None
    with open(path, "xb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)
        os.fchmod(file.fileno(), 0o755)


def _damaged(deb: HostPath) -> DamagedPackage:
    return DamagedPackage(f"Cannot unpack {deb}: dpkg-deb cannot read it", "try again")


def _publish(
    offer: _Offer, arches: tuple[Arch, ...], made: HostPath, place: HostPath, progress: Progress
) -> Fetched:
    version, working, refused = _verify(arches, made, progress)
    if not working:
        names = ", ".join(arch.common_name for arch in arches)
        raise InterpreterMissing(
            f"{offer.package} {offer.version} does not serve: "
            + ("; ".join(refused) or f"it has no interpreter for {names}"),
            "another version may: xbuild setup --version VERSION, or --suite SUITE",
        )
    with open(f"{made}/{_ORIGIN}", "w", encoding="utf-8") as file:
        origin = {"package": offer.package, "version": offer.version, "suite": offer.apt[0].suite}
        json.dump(origin, file)
    directory = HostPath(os.path.join(place, version))
    if os.path.isdir(directory):
        for name in os.listdir(made):
            os.replace(f"{made}/{name}", f"{directory}/{name}")
    else:
        os.rename(made, directory)
    return Fetched(version, f"{offer.package} {offer.version}", directory, working, refused)


def _verify(
    arches: tuple[Arch, ...], made: HostPath, progress: Progress
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Run each interpreter; return their version, those that work, and why others do not."""
    version, working, refused = "", [], []
    for number, arch in enumerate(arches):
        path = HostPath(f"{made}/qemu-{arch.name}")
        if not os.path.exists(path):
            continue
        progress(f"trying qemu-{arch.name}", number / len(arches))
        try:
            tried = verify_interpreter(Interpreter(path, arch, None, "fetched"))
        except InterpreterError as error:
            refused.append(error.message)
            os.unlink(path)
            continue
        version = version or tried.version or ""
        working.append(arch.name)
    return version, tuple(working), tuple(refused)
