"""Trees from container images: skopeo(1) fetches and checks, umoci(1) unpacks the layers.

An image of a registry, of an archive or of a layout becomes a layout of its own beside the new
tree, with the one image of the architecture that was asked for. umoci puts its layers on each
other where nothing else can be reached (``sandbox.confined``).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.emulation.packages import package_command
from xbuild.errors import DownloadFailed, HostUnable, SourceError, WrongDigest
from xbuild.record import GuestPath, HostPath, assert_never
from xbuild.sandbox import _linux
from xbuild.sandbox.as_root import as_root_of
from xbuild.sandbox.confined import ConfinedProgram, Place
from xbuild.source.kinds import OciArchive, OciLayout, OciRegistry, OciSource
from xbuild.source.oci_layout import (
    ImageConfig,
    Platform,
    arch_of,
    blob_path,
    platforms,
    read_config,
    tags,
    verify_manifests,
)
from xbuild.source.unpack import NODES, Vetting, unpack_archive
from xbuild.tree.members import read_members
from xbuild.tree.stream import ForwardStream

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities
    from xbuild.source.apt import Progress

_WORK = GuestPath("/work")
_TAG = "tree"
_UID_MAP = HostPath("/proc/self/uid_map")  # by which umoci knows that it may not make device nodes
_POLICIES = ("/etc/containers/policy.json", "~/.config/containers/policy.json")
_LOGINS = "/run/containers"  # containers-auth.json(5): without XDG_RUNTIME_DIR
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?/")
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_MARK = "user.rootlesscontainers"  # where umoci notes the owner that it could not give
_NOT_OFFERED = ("no image found in manifest list", "no image found in image index")
_UNKNOWN = ("manifest unknown", "name unknown", "name invalid", "not found", "no descriptor found")
_UNREACHABLE = ("connection refused", "no such host", "i/o timeout", "network is unreachable")
_REFUSED = ("unauthorized", "denied", "authentication required")
_WRONG = ("Digest did not match", "does not match", "unexpected digest")


def require_skopeo(source: OciSource) -> None:
    """Raise HostUnable where it is not installed."""
    if shutil.which("skopeo") is None:
        raise HostUnable(
            f"Cannot get {source.name}: skopeo is not installed", package_command("skopeo")
        )


def fetch_image(
    source: OciSource, place: HostPath, identities: Identities, progress: Progress
) -> HostPath:
    """Return the layout ``place``/oci with the image that was asked for, and no other.

    Raises SourceError, DownloadFailed, WrongDigest, HostUnable.
    """
    require_skopeo(source)
    layout = HostPath(f"{place}/oci")
    origin = _origin(source, place, identities, progress)
    progress(f"getting {source.name} for {source.platform}", None)
    tls = ("--src-tls-verify=false",) if _is_local(origin) else ()
    _skopeo(
        source,
        ("copy", *_platform_options(source.platform), *tls, origin, f"oci:{layout}:{_TAG}"),
        lambda said: _explain(source, origin, layout, said),
    )
    config = read_config(layout)
    if config.platform.architecture != source.platform.architecture:
        raise _not_offered(source, (config.platform,))
    return layout


def _origin(source: OciSource, place: HostPath, identities: Identities, progress: Progress) -> str:
    """Return skopeo's name of the image; what is on disk is checked as skopeo does not."""
    match source:
        case OciRegistry(reference):
            name = f"docker://{reference}"
        case OciLayout(path, tag):
            verify_manifests(path)
            name = f"oci:{path}:{_tag_of(source, path, tag)}"
        case OciArchive(path, tag):
            progress(f"unpacking {os.path.basename(path)}", None)
            unpacked = HostPath(f"{place}/archive")
            os.mkdir(unpacked)
            unpack_archive(path, unpacked, identities, keeps_owners=False)
            verify_manifests(unpacked)
            name = f"oci:{unpacked}:{_tag_of(source, unpacked, tag)}"
        case _:
            assert_never(source)
    return name


def _tag_of(source: OciSource, layout: HostPath, tag: str) -> str:
    known = tags(layout)
    if tag and tag not in known:
        raise SourceError(f"{source.name} has no image {tag!r}", f"it has {', '.join(known)}")
    if not tag and len(known) > 1:
        raise SourceError(
            f"{source.name} has several images: {', '.join(known)}", f"{source.name}:{known[0]}"
        )
    return tag or (known[0] if known else "")


def _platform_options(platform: Platform) -> tuple[str, ...]:
    variant = ("--override-variant", platform.variant) if platform.variant else ()
    return ("--override-os", "linux", "--override-arch", platform.architecture, *variant)


def _is_local(origin: str) -> bool:
    """Tell whether it is of a registry on this machine, which alone may do without TLS."""
    reference = origin.removeprefix("docker://")
    return reference != origin and _LOOPBACK.match(reference) is not None


def _skopeo(
    source: OciSource, arguments: tuple[str, ...], explain: Callable[[str], SourceError]
) -> bytes:
    has_policy = any(os.path.exists(os.path.expanduser(path)) for path in _POLICIES)
    policy = () if has_policy else ("--insecure-policy",)
    # Alone, it would go on writing when this process is killed.
    dying = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    command = [*dying, "skopeo", *policy, *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=_environment()
        )
    except OSError as error:
        raise HostUnable(
            f"Cannot get {source.name}: skopeo: {error.strerror}", "install skopeo"
        ) from error
    if done.returncode:
        raise explain(done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _environment() -> dict[str, str]:
    environment = {**os.environ, "LC_ALL": "C"}
    # Where podman has run as root nobody else may look there, and skopeo takes that for a failure.
    is_closed = os.path.isdir(_LOGINS) and not os.access(_LOGINS, os.X_OK)
    if is_closed and not environment.get("XDG_RUNTIME_DIR"):
        environment["XDG_RUNTIME_DIR"] = os.sep  # it looks in ~/.config/containers as well
    return environment


def _explain(source: OciSource, origin: str, layout: HostPath, said: str) -> SourceError:
    messages = _MESSAGE.findall(said)
    reason = (messages[-1] if messages else said.strip()[-300:]).replace('\\"', '"')
    if any(sign in reason for sign in _NOT_OFFERED):
        tls = ("--tls-verify=false",) if _is_local(origin) else ()
        raw = ("inspect", "--raw", *tls, origin)
        index = _skopeo(
            source,
            raw,
            lambda more: SourceError(
                f"Cannot read {source.name}: {more}", "skopeo inspect says more of an image"
            ),
        )
        return _not_offered(source, platforms(layout, index))
    if any(sign in reason for sign in _WRONG):
        return WrongDigest(f"{source.name} is damaged or tampered with: {reason}", "get it again")
    if any(sign in reason for sign in _UNREACHABLE):
        return DownloadFailed(f"Cannot reach the registry of {source.name}: {reason}", "is it up?")
    if any(sign in reason for sign in _REFUSED):
        return DownloadFailed(
            f"The registry does not give {source.name} to you: {reason}", "skopeo login REGISTRY"
        )
    if any(sign in reason for sign in _UNKNOWN):
        return SourceError(f"There is no image {source.name}: {reason}", "look at name and tag")
    return SourceError(
        f"Cannot get {source.name}: {reason}",
        "skopeo inspect says more of an image, skopeo login gives access to one",
    )


def _not_offered(source: OciSource, offered: tuple[Platform, ...]) -> SourceError:
    names = ", ".join(map(str, offered)) or "none"
    arch = arch_of(offered[0]) if offered else None
    hint = f"--arch {arch.common_name}" if arch else "another image, or another tag of it"
    return SourceError(f"{source.name} has no image for {source.platform}, but for {names}", hint)


def unpack_image(
    layout: HostPath,
    config: ImageConfig,
    tree: HostPath,
    identities: Identities,
    *,
    size_limit: int,
) -> tuple[str, ...]:
    """Make ``tree`` what the layers of a fetched image are, and return the device nodes left out.

    Raises UnsafeArchive, DamagedArchive, SourceError, HostUnable.
    """
    nodes = _vet(layout, config, tree, size_limit)
    place = HostPath(os.path.dirname(tree))
    rootless = ("--rootless",) if identities.kind == "single" else ()
    image = f"{_WORK}/{os.path.basename(layout)}:{_TAG}"
    argv = ("umoci", "raw", "unpack", *rootless, "--image", image, f"{_WORK}/{_TAG}")
    with ConfinedProgram(
        argv,
        (Place(place, _WORK, writable=True), Place(_UID_MAP, GuestPath(_UID_MAP))),
        identities.outer,
        purpose=f"unpack {layout}",
    ) as program:
        ended = program.wait()
    if ended.status:
        lines = ended.said.strip().splitlines() or [f"umoci ended with status {ended.status}"]
        has_room = "no space left" not in ended.said
        raise SourceError(
            f"Cannot unpack the image: {lines[-1].strip()}", "" if has_room else "make room"
        )
    if identities.outer is None:
        return ()
    as_root_of(identities.outer, lambda: _remove_stand_ins(tree, nodes))
    return tuple(nodes)


def _vet(layout: HostPath, config: ImageConfig, tree: HostPath, limit: int) -> list[str]:
    """Look at all members before any is made; return the device nodes that the tree would have."""
    nodes: dict[str, None] = {}
    place = HostPath(os.path.dirname(tree))
    for digest in config.layers:
        blob = blob_path(layout, digest)
        label = f"layer {digest} of the image"
        vetting = Vetting(blob, place, limit, label=label)
        with ForwardStream(blob, label) as stream:
            for member, end in read_members(stream):
                vetting.judge(member, end - stream.tell())
                name = os.path.normpath(member.name).lstrip("/")
                nodes.pop(name, None)
                if member.type in NODES:
                    nodes[name] = None
            stream.finish()
        limit -= vetting.size
        vetting.look_at_room(vetting.size)
    return list(nodes)


def _remove_stand_ins(tree: HostPath, nodes: list[str]) -> str:
    """Remove the empty files that umoci makes in place of device nodes, and its own notes."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in nodes:
        with suppress(OSError):
            _remove_stand_in(root, name)
    os.close(root)
    for directory, directories, files in os.walk(tree):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            if not os.path.islink(path) and _MARK in os.listxattr(path):
                os.removexattr(path, _MARK)
    return ""


def _remove_stand_in(root: int, name: str) -> None:
    """Remove an empty file of the tree, to which a later layer may have laid links."""
    directory, _, last = name.rpartition("/")
    flags = os.O_PATH | os.O_DIRECTORY
    parent = _linux.openat2(root, directory or ".", flags=flags, resolve=_linux.RESOLVE_IN_ROOT)
    try:
        status = os.lstat(last, dir_fd=parent)
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.unlink(last, dir_fd=parent)
    finally:
        os.close(parent)
