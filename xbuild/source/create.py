"""Make a tree from a source, whichever kind it is: one function that knows them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xbuild.errors import HostUnable
from xbuild.record import HostPath, Record, assert_never
from xbuild.sandbox.probes.ids import how_to_get_ids
from xbuild.source import unpack
from xbuild.source.alpine import fetched_minirootfs
from xbuild.source.bootstrap import bootstrap
from xbuild.source.download import Patience, Wanted, downloaded, file_name
from xbuild.source.empty import fetch_busybox, make_empty_tree
from xbuild.source.kinds import (
    EmptyRootfs,
    Minirootfs,
    OciArchive,
    OciLayout,
    OciRegistry,
    OciSource,
    Source,
    Stage3,
    Suite,
    TarballFile,
    TarballUrl,
)
from xbuild.source.oci import fetch_image, unpack_image
from xbuild.source.oci_layout import read_config
from xbuild.source.oci_settings import settings_of
from xbuild.source.stage3 import fetched_stage3

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities
    from xbuild.source.apt import Progress

_LISTED = 8  # device nodes that are named one by one


class Work(Record):
    """With what a tree is made: the ids of who makes it, a limit in bytes, who is told."""

    identities: Identities
    size_limit: int
    progress: Progress


class Made(Record):
    """What a person should know of a tree that was made.

    ``settings`` are to stand beside it (docs/profiles.md), "" for none.
    """

    notes: tuple[str, ...] = ()
    settings: str = ""


def make_tree(source: Source, tree: HostPath, work: Work) -> Made:
    """Make ``tree``, whose place is empty and nobody else's.

    Raises SourceError and what unpack_archive() does; what was made until then is the caller's.
    """
    match source:
        case TarballFile(path, sha256):
            if sha256 is not None:
                work.progress(f"checking {path}", None)
                unpack.check_digest(path, sha256)
            made = unpack_to(path, tree, work)
        case TarballUrl(url, sha256, stall_s):
            with downloaded(
                Wanted(url, sha256 or ""), patience=Patience(stall_s), progress=work.progress
            ) as found:
                made = unpack_to(found.path, tree, work, found.url)
        case Suite():
            require_range(source, work.identities)
            made = Made(bootstrap(source, HostPath(os.path.dirname(tree)), work.progress))
        case OciRegistry() | OciArchive() | OciLayout():
            made = _image(source, tree, work)
        case Stage3(variant, mirror, keyring, stall_s):
            with fetched_stage3(
                variant, mirror, keyring, patience=Patience(stall_s), progress=work.progress
            ) as found:
                made = unpack_to(found.path, tree, work, found.url)
        case Minirootfs(branch, architecture, mirror, signers, sha256, stall_s):
            with fetched_minirootfs(
                branch,
                architecture,
                mirror,
                signers,
                sha256=sha256 or "",
                patience=Patience(stall_s),
                progress=work.progress,
            ) as found:
                made = unpack_to(found.path, tree, work, found.url)
        case EmptyRootfs(architecture):
            busybox = fetch_busybox(architecture, work.progress)
            _make_directory(tree)
            make_empty_tree(tree, busybox)
            made = Made()
        case _:
            assert_never(source)
    return made


def _image(source: OciSource, tree: HostPath, work: Work) -> Made:
    place = HostPath(os.path.dirname(tree))
    layout = fetch_image(source, place, work.identities, work.progress)
    config = read_config(layout)
    work.progress("unpacking its layers", None)
    left_out = unpack_image(layout, config, tree, work.identities, size_limit=work.size_limit)
    settings, notes = settings_of(config, source.name)
    return Made((*notes, *_lacks(work, left_out)), settings)


def require_range(source: Suite, identities: Identities) -> None:
    """Raise HostUnable unless packages' files can have the users that they belong to."""
    if identities.kind == "single":
        raise HostUnable(
            f"Cannot make {source.name}: its packages have files of several users, and you have one"
            " user id",
            how_to_get_ids(os.geteuid()),
        )


def unpack_to(archive: HostPath, tree: HostPath, work: Work, url: str = "") -> Made:
    """Make ``tree`` what a tar archive has, which was verified as far as it is to be.

    ``url`` is where it is from, if it is one of the cache, whose path says nothing to people.
    """
    _make_directory(tree)
    text = f"unpacking {file_name(url) if url else os.path.basename(archive)}"

    def report(done: int, total: int) -> None:
        work.progress(text, done / total if total else None)

    unpacked = unpack.unpack_archive(
        archive, tree, work.identities, size_limit=work.size_limit, label=url, progress=report
    )
    return Made((*unpacked.complaints, *_lacks(work, unpacked.left_out)))


def _lacks(work: Work, left_out: tuple[str, ...]) -> Iterator[str]:
    if left_out:
        yield _left_out(left_out)
    if work.identities.kind == "single":
        yield "owners are not kept: all files are yours (no subordinate ids: xbuild doctor)"


def _left_out(names: tuple[str, ...]) -> str:
    listed = ", ".join(names[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"device nodes, which root alone can make, are left out: {listed}{more}"


def _make_directory(tree: HostPath) -> None:
    os.mkdir(tree)
    os.chmod(tree, 0o755)
