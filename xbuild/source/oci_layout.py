"""OCI image layouts on disk: what an index offers, and the configuration of an image.

Only reads. Format: the OCI image specification (image-layout, image-index, manifest, config).
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from xbuild.binary.arch import Arch, arch_named
from xbuild.errors import SourceError, WrongDigest
from xbuild.record import HostPath, Record

_LIMIT = 8 << 20  # bytes of a manifest, an index or a configuration
_DEPTH = 4  # indexes in indexes
_TAG = "org.opencontainers.image.ref.name"
_INDEXES = frozenset(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
# Go's names, which images go by, where they are not xbuild's.
_GO_NAMES = {
    "x86_64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "loongarch64": "loong64",
    "mips64el": "mips64le",
    "mipsel": "mipsle",
}
_ARM_VARIANTS = {"armel": "v5", "armv5tel": "v5", "armv5tejl": "v5", "armv6l": "v6"}


class Platform(Record):
    """An architecture and its variant ("" for any) as images name them."""

    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture


class ImageConfig(Record):
    """What an image says of itself: its platform, layers' digests, and how it is to be run."""

    platform: Platform
    layers: tuple[str, ...]
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    directory: str
    user: str


def platform_of(arch: Arch, name: str) -> Platform:
    """Return the platform of an architecture, which a person called ``name``."""
    architecture = _GO_NAMES.get(arch.name, arch.name)
    variant = _ARM_VARIANTS.get(name, "v7") if arch.name == "arm" else ""
    return Platform(architecture, variant)


def arch_of(platform: Platform) -> Arch:
    """Return the architecture of a platform. Raises UnknownArchitecture."""
    names = {go: ours for ours, go in _GO_NAMES.items()}
    return arch_named(names.get(platform.architecture, platform.architecture))


def verify_manifests(layout: HostPath) -> None:
    """Check that each manifest and index of a layout is what refers to it says.

    Raises WrongDigest, SourceError. Configurations and layers are checked by who copies them.
    """
    index = _read_json(layout, "index.json")
    _verify_below(layout, index, _DEPTH)


def _verify_below(layout: HostPath, index: dict[str, Any], depth: int) -> None:
    for descriptor in _manifests(layout, index):
        content = _read_blob(layout, descriptor)
        if content is not None and descriptor.get("mediaType") in _INDEXES:
            if not depth:
                raise _malformed(layout, "an index in an index, without end")
            _verify_below(layout, _parse(layout, content), depth - 1)


def _manifests(layout: HostPath, index: dict[str, Any]) -> list[dict[str, Any]]:
    found = index.get("manifests")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _malformed(layout, "an index without manifests")
    return found


def _read_blob(layout: HostPath, descriptor: dict[str, Any]) -> bytes | None:
    """Return what a descriptor refers to, None where a layout does not have it."""
    path = blob_path(layout, descriptor.get("digest"))
    try:
        content = _read(path)
    except FileNotFoundError:
        return None  # one of another platform: layouts may be sparse
    algorithm = str(descriptor["digest"]).partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    if found != descriptor["digest"]:
        raise WrongDigest(
            f"{layout} is damaged or tampered with: a manifest has the digest {found}, not"
            f" {descriptor['digest']}",
            "get the image again",
        )
    return content


def blob_path(layout: HostPath, digest: object) -> HostPath:
    """Return where a layout has a blob. Raises SourceError for what is no digest."""
    algorithm, _, hexadecimal = str(digest).partition(":")
    if algorithm not in ("sha256", "sha512") or not _is_hexadecimal(hexadecimal):
        raise _malformed(layout, f"{digest!r} is no digest")
    return HostPath(f"{layout}/blobs/{algorithm}/{hexadecimal}")


def _is_hexadecimal(text: str) -> bool:
    return bool(text) and not set(text) - set("0123456789abcdef")


def tags(layout: HostPath) -> tuple[str, ...]:
    """Return the names that a layout gives its images. Raises SourceError."""
    manifests = _manifests(layout, _read_json(layout, "index.json"))
    found = (each.get("annotations", {}).get(_TAG) for each in manifests)
    return tuple(tag for tag in found if isinstance(tag, str))


def platforms(layout: HostPath, index: bytes) -> tuple[Platform, ...]:
    """Return what an index offers. Raises SourceError."""
    found = []
    for each in _manifests(layout, _parse(layout, index)):
        named = each.get("platform") or {}
        if named.get("architecture", "unknown") != "unknown":  # attestations have this one
            found.append(Platform(str(named["architecture"]), str(named.get("variant", ""))))
    return tuple(dict.fromkeys(found))


def read_config(layout: HostPath) -> ImageConfig:
    """Return the configuration of a layout's only image. Raises SourceError."""
    (descriptor,) = _manifests(layout, _read_json(layout, "index.json"))
    manifest = _parse(layout, _need(layout, _read_blob(layout, descriptor)))
    config = _parse(layout, _need(layout, _read_blob(layout, manifest["config"])))
    run = config.get("config") or {}
    return ImageConfig(
        Platform(str(config.get("architecture")), str(config.get("variant") or "")),
        tuple(str(layer["digest"]) for layer in manifest["layers"]),
        _texts(run.get("Env")),
        _texts(run.get("Entrypoint")),
        _texts(run.get("Cmd")),
        str(run.get("WorkingDir") or ""),
        str(run.get("User") or ""),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _need(layout: HostPath, content: bytes | None) -> bytes:
    if content is None:
        raise _malformed(layout, "a part is missing")
    return content


def _read_json(layout: HostPath, name: str) -> dict[str, Any]:
    try:
        return _parse(layout, _read(f"{layout}/{name}"))
    except OSError as error:
        raise SourceError(
            f"{layout} is no OCI layout: {error.strerror} at {name}",
            "name a directory that has oci-layout and index.json in it, as skopeo copy makes one",
        ) from error


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise SourceError(
            f"{path} is larger than an image's description can be",
            "copy it again, as by skopeo copy",
        )
    return content


def _parse(layout: HostPath, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _malformed(layout, str(error)) from error
    if not isinstance(value, dict):
        raise _malformed(layout, "not an object of JSON")
    return value


def _malformed(layout: HostPath, why: str) -> SourceError:
    return SourceError(
        f"{os.path.basename(layout)} is no image that can be read: {why}",
        "copy it again, as by skopeo copy",
    )
