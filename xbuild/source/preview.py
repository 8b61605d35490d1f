"""What making a tree of a source is going to do, in words, and what it would refuse at once.

Nothing is fetched or written. What is refused here is what ``make_tree`` refuses before it acts:
the same functions decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.record import HostPath, assert_never
from xbuild.source import alpine, stage3
from xbuild.source.bootstrap import mirrors_for
from xbuild.source.cache import cache_directory
from xbuild.source.create import require_range
from xbuild.source.debian import default_suites
from xbuild.source.http import require_safe
from xbuild.source.kinds import (
    EmptyRootfs,
    Minirootfs,
    OciArchive,
    OciLayout,
    OciRegistry,
    Source,
    Stage3,
    Suite,
    TarballFile,
    TarballUrl,
)
from xbuild.source.mirror import find_mirrors
from xbuild.source.oci import require_skopeo
from xbuild.source.sources_list import sources_of, updates_of
from xbuild.tree.stream import ForwardStream

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities

Line = tuple[str, str]
"""What a line is about, and what it says of that."""


def preview(source: Source, directory: HostPath, identities: Identities) -> tuple[Line, ...]:
    """Return what happens for a tree that is made in ``directory``. Raises as make_tree() does."""
    match source:
        case TarballFile(path, sha256):
            with ForwardStream(path):
                lines = [("unpack", path), *_digest(sha256)]
        case TarballUrl(url, sha256, _):
            require_safe(url, is_checked=sha256 is not None)
            lines = [_download(url), *_digest(sha256), ("unpack", "what was downloaded")]
        case Suite():
            lines = _of_suite(source, directory, identities)
        case OciRegistry() | OciArchive() | OciLayout():
            require_skopeo(source)
            lines = [
                ("fetch", f"{source.name} for {source.platform}, by skopeo"),
                ("check", "every part by the digest that the image's manifest has"),
                ("unpack", "its layers, by umoci"),
                ("settings", "how the image says that it is to be run, beside the tree"),
            ]
        case Stage3(variant, mirror, keyring, _):
            lines = [
                _download(stage3.list_of(variant, mirror, keyring)),
                ("download", "the archive that it names, with its signatures"),
                ("check", f"signatures of the list and the archive, by the keys of {keyring}"),
                ("unpack", "the archive"),
            ]
        case Minirootfs(branch, architecture, mirror, keyring, sha256, _):
            alpine.require_check(keyring, sha256 or "")
            lines = [
                _download(alpine.list_of(branch, architecture, mirror)),
                ("download", "the minirootfs that it names"),
                *([("check", f"its signature, by the keys of {keyring}")] if keyring else []),
                *_digest(sha256),
                ("unpack", "the archive"),
            ]
        case EmptyRootfs(architecture):
            origin = ", ".join(mirror.uri for mirror in find_mirrors())
            suites = " or ".join(default_suites(architecture))
            lines = [
                ("fetch", f"busybox-static of Debian {suites} for {architecture} from {origin}"),
                ("make", "the usual directories, and busybox with its applets"),
            ]
        case _:
            assert_never(source)
    return tuple(lines)


def _download(url: str) -> Line:
    return ("download", f"{url}, kept in {cache_directory()}/downloads")


def _digest(sha256: str | None) -> list[Line]:
    return [("check", f"its SHA-256 digest: {sha256}")] if sha256 else []


def _of_suite(source: Suite, directory: HostPath, identities: Identities) -> list[Line]:
    require_range(source, identities)
    mirrors = mirrors_for(source, directory)
    lines = [("source", line) for line in sources_of(source, mirrors[0], "")]
    lines += [("or else", f"the mirror {mirror.uri}") for mirror in mirrors[1:]]
    lines += [("later", f"{line}, by apt inside") for line in updates_of(source, mirrors[0], "")]
    lines.append(("check", f"signatures, by the keys of {mirrors[0].keyring} and no others"))
    more = f", and {' '.join(source.include)}" if source.include else ""
    lines.append(("install", f"packages of the variant {source.variant}{more}, by mmdebstrap"))
    lines.append(("run", f"their scripts, for {source.architecture}, in a container"))
    return lines
