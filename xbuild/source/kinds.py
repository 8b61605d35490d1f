"""From what a tree can be made: the closed union of sources, and the words that name them.

Pure. A source has all that was said about it; how it is obtained is ``create``'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Literal

from xbuild.binary.arch import arch_named, host_arch, plain_name
from xbuild.errors import UsageError
from xbuild.record import HostPath, Record
from xbuild.source import alpine, stage3
from xbuild.source.misnamed import (
    no_such_archive,
    refuse_additions,
    unknown_source,
    unknown_suite,
)
from xbuild.source.oci_layout import Platform, platform_of

VARIANTS = ("minbase", "essential", "apt", "important", "standard", "buildd")  # mmdebstrap(1)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_SUITE_NAME = re.compile(r"[a-z][a-z0-9.-]*")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:=~-]*(/[a-z0-9-]+)?")
_ARCHIVE_ENDINGS = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_COMPRESSED_ENDINGS = tuple(f".tar.{kind}" for kind in ("gz", "bz2", "xz", "lzma", "zst"))


class Options(Record):
    """What was said besides the source's name. Each kind takes some of it."""

    arch: str | None = None
    sha256: str | None = None
    mirror: str | None = None
    keyring: str | None = None
    stall_s: float | None = None
    include: tuple[str, ...] = ()
    variant: str | None = None


class TarballFile(Record):
    """A tar archive of a tree, plain or compressed; ``sha256`` in hexadecimal where known."""

    path: HostPath
    sha256: str | None = None


class TarballUrl(Record):
    """A tar archive that a server has; ``stall_s`` is how long it may be silent."""

    url: str
    sha256: str | None
    stall_s: float


class Stage3(Record):
    """The latest stage3 archive of a variant, signed by a key of ``keyring``."""

    variant: str
    mirror: str
    keyring: HostPath
    stall_s: float


class Minirootfs(Record):
    """The latest of Alpine's archives of a branch; signed by a key of ``keyring`` if there is one.

    ``architecture`` is Alpine's name.
    """

    branch: str
    architecture: str
    mirror: str
    keyring: HostPath | None
    sha256: str | None
    stall_s: float


class EmptyRootfs(Record):
    """A tree with busybox and its applets; ``architecture`` is Debian's name."""

    architecture: str


class Suite(Record):
    """A release of Debian's or Ubuntu's, configured; ``architecture`` is Debian's name.

    ``variant`` is one of VARIANTS, ``include`` are packages besides. ``mirror`` is a URL, None for
    what this host knows, as is ``keyring``.
    """

    distribution: Literal["debian", "ubuntu"]
    suite: str
    architecture: str
    variant: str
    include: tuple[str, ...] = ()
    mirror: str | None = None
    keyring: HostPath | None = None

    @property
    def name(self) -> str:
        """Return it as a person writes it."""
        return f"{self.distribution}:{self.suite}"


class OciRegistry(Record):
    """The image of a platform that a registry has; ``reference`` is a container engine's."""

    reference: str
    platform: Platform

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.reference


class _OciOnDisk(Record):
    path: HostPath
    tag: str
    platform: Platform

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.path


class OciArchive(_OciOnDisk):
    """The image of a platform in an archive of a layout; ``tag`` is "" where it has one only."""


class OciLayout(_OciOnDisk):
    """The image of a platform in a layout, a directory; ``tag`` is "" where it has one only."""


OciSource = OciRegistry | OciArchive | OciLayout
Source = TarballFile | TarballUrl | Suite | OciSource | Stage3 | Minirootfs | EmptyRootfs
_STALL_S = 30.0


def parse_source(text: str, options: Options) -> Source:
    """Return the source that ``text`` names, with those options. Raises UsageError."""
    kind, colon, rest = text.partition(":")
    parse = _KINDS.get(kind) if colon else None
    if parse is not None:
        return parse(rest, _Taken(text, options))
    if text.startswith(("https://", "http://")):
        return _url(text, _Taken(text, options))
    is_url = _URL.match(text) is not None
    if not is_url and (is_archive_name(text) or "/" in text or os.path.exists(text)):
        return _tarball(text, _Taken(text, options))
    raise unknown_source(text, _KINDS, FORMS)


def is_archive_name(name: str) -> bool:
    """Tell whether a file's name is one that tar archives have."""
    return name.lower().endswith((*_ARCHIVE_ENDINGS, *_COMPRESSED_ENDINGS))


class _Taken:
    """Options as one kind of source takes them; who forgets one shall hear of it."""

    def __init__(self, text: str, options: Options) -> None:
        self.text = text
        self._left: dict[str, Any] = {  # Any: the fields carry the types
            field: value
            for field in options.__match_args__
            if (value := getattr(options, field)) not in (None, ())
        }

    def text_of(self, field: str) -> str | None:
        """Return a single option's value, None where it was not given."""
        value: str | None = self._left.pop(field, None)
        return value

    def path_of(self, field: str) -> HostPath | None:
        """Return an option's value as an absolute path, None where it was not given."""
        value = self.text_of(field)
        return None if value is None else HostPath(os.path.abspath(value))

    def stall_s(self) -> float:
        """Return how long a server may be silent."""
        value: float = self._left.pop("stall_s", _STALL_S)
        return value

    def list_of(self, field: str) -> tuple[str, ...]:
        """Return the values of an option that may be given several times, or with commas."""
        values: tuple[str, ...] = self._left.pop(field, ())
        return tuple(name for text in values for name in text.split(",") if name)

    def platform(self) -> Platform:
        """Return the platform of an architecture, by default this host's."""
        name = self.text_of("arch")
        arch = host_arch() if name is None else arch_named(name)
        return platform_of(arch, plain_name(name or arch.name))

    def finish(self) -> None:
        """Raise UsageError where an option was given that this kind of source has no use for."""
        for field in self._left:
            name = _NAMES.get(field, field.replace("_", "-"))
            raise UsageError(f"--{name} does not go with {self.text}", "xbuild create --help")


def _tarball(path: str, taken: _Taken) -> TarballFile:
    digest = taken.text_of("sha256")
    taken.finish()
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory", "xbuild pack makes an archive of a tree")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(
            f"{path} is no regular file", "an archive is read twice: write it to a file first"
        )
    sha256 = parse_sha256(digest)
    if not os.path.lexists(path):
        raise no_such_archive(path, os.path.abspath(path))
    return TarballFile(HostPath(os.path.abspath(path)), sha256)


def _url(url: str, taken: _Taken) -> TarballUrl:
    found = TarballUrl(url, parse_sha256(taken.text_of("sha256")), taken.stall_s())
    taken.finish()
    return found


def _suite_of(distribution: Literal["debian", "ubuntu"]) -> Callable[[str, _Taken], Suite]:
    def parse(suite: str, taken: _Taken) -> Suite:
        found = Suite(
            distribution,
            suite,
            debian_architecture(taken.text_of("arch")),
            taken.text_of("variant") or VARIANTS[0],
            taken.list_of("include"),
            parse_mirror(taken.text_of("mirror")),
            taken.path_of("keyring"),
        )
        taken.finish()
        _check_suite(found)
        return found

    return parse


def _check_suite(suite: Suite) -> None:
    refuse_additions(suite.distribution, suite.suite)
    if not _SUITE_NAME.fullmatch(suite.suite):
        raise unknown_suite(suite.distribution, suite.suite)
    if suite.variant not in VARIANTS:
        raise UsageError(f"Unknown variant {suite.variant!r}", f"known are {', '.join(VARIANTS)}")
    for name in suite.include:
        if not _PACKAGE_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no package's name", "--include NAME[,NAME]")


def parse_mirror(text: str | None) -> str | None:
    """Return a mirror's URL. Raises UsageError for what is none, as apt's lines are."""
    if text is None:
        return None
    if not re.fullmatch(r"(https?|file|copy)://?[^\s\[\]\"']+", text):
        raise UsageError(f"{text!r} is no mirror", "give its URL: https://…")
    return text


def _registry(reference: str, taken: _Taken) -> OciRegistry:
    reference = reference.removeprefix("//")
    found = OciRegistry(reference, taken.platform())
    taken.finish()
    if not re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*", reference):
        raise UsageError(f"{reference!r} is no image", "such as docker://registry.example/name:tag")
    return found


def _oci_archive(text: str, taken: _Taken) -> OciArchive:
    found = OciArchive(*_path_and_tag(text), taken.platform())
    taken.finish()
    if not os.path.lexists(found.path):
        raise no_such_archive("", found.path)
    return found


def _oci_layout(text: str, taken: _Taken) -> OciLayout:
    found = OciLayout(*_path_and_tag(text), taken.platform())
    taken.finish()
    return found


def _path_and_tag(text: str) -> tuple[HostPath, str]:
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag or os.path.exists(text):
        path, tag = text, ""
    if not path:
        raise UsageError(f"Which file or directory is {text!r}?", "oci-archive:FILE[:TAG]")
    return HostPath(os.path.abspath(path)), tag


def _stage3(variant: str, taken: _Taken) -> Stage3:
    stage3.release_directory(variant)
    found = Stage3(
        variant,
        taken.text_of("mirror") or stage3.MIRROR,
        taken.path_of("keyring") or stage3.KEYRING,
        taken.stall_s(),
    )
    taken.finish()
    return found


def _alpine(branch: str, taken: _Taken) -> Minirootfs:
    name = taken.text_of("arch")
    found = Minirootfs(
        alpine.branch_named(branch),
        alpine.alpine_architecture(
            host_arch() if name is None else arch_named(name), plain_name(name or "")
        ),
        taken.text_of("mirror") or alpine.MIRROR,
        taken.path_of("keyring"),
        parse_sha256(taken.text_of("sha256")),
        taken.stall_s(),
    )
    taken.finish()
    return found


def parse_sha256(text: str | None) -> str | None:
    """Return a digest in lower case. Raises UsageError."""
    if text is None:
        return None
    digest = text.strip().lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UsageError(f"{text!r} is no SHA-256 digest", "it has 64 hexadecimal digits")
    return digest


def _rootfs(name: str, taken: _Taken) -> EmptyRootfs:
    if name != "EMPTY":
        raise UsageError(f"Unknown source 'rootfs:{name}'", "rootfs:EMPTY has busybox alone")
    architecture = debian_architecture(taken.text_of("arch"))
    taken.finish()
    return EmptyRootfs(architecture)


def debian_architecture(name: str | None) -> str:
    """Return Debian's name of an architecture, by default this host's. Raises UsageError."""
    arch = host_arch() if name is None else arch_named(name)
    if plain_name(name or "") in _ARMEL:  # which shares its ELF machine with armhf
        return "armel"
    if arch.debian is None:
        raise UsageError(f"Debian has no name for {arch.common_name}", "name another with --arch")
    return arch.debian


_ARMEL = ("armel", "armv5tel", "armv5tejl")
_NAMES = {"stall_s": "stall-timeout"}
_KINDS: dict[str, Callable[[str, _Taken], Source]] = {
    "alpine": _alpine,
    "debian": _suite_of("debian"),
    "docker": _registry,
    "oci": _registry,
    "oci-archive": _oci_archive,
    "oci-layout": _oci_layout,
    "rootfs": _rootfs,
    "stage3": _stage3,
    "ubuntu": _suite_of("ubuntu"),
}
FORMS = (
    "a tar archive's path or URL",
    "debian:SUITE",
    "ubuntu:SUITE",
    "oci:REF or docker://REF",
    "oci-archive:FILE",
    "oci-layout:DIR",
    "stage3:VARIANT (Gentoo)",
    "alpine:BRANCH",
    "rootfs:EMPTY",
)
