"""``xbuild run --ccache``: a native ccache in front of a tree's compilers.

The cache is the host's, one for each kind of target (its CHOST), and knows a compiler by the
content of the tree's files, never by a path or a time: another tree with the same compiler hits,
an upgraded compiler misses. ccache(1) has the variables.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from xbuild.errors import HostUnable, TargetError
from xbuild.native.masquerade import compilers_in, native_place, stand_before
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, replace
from xbuild.toolset.digests import Digests
from xbuild.tree.chost import chost_for
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_directory

DEFAULT = "default"
_INSIDE = GuestPath("/run/xbuild/ccache/store")
_PROPER = re.compile(r"/usr/(?:lib|libexec)/gcc/[^/]+/[^/]+/(?:cc1|cc1plus|cc1obj)")
_OF_CLANG = re.compile(r"lib(?:LLVM|clang-cpp)[.-].*\.?so")


def with_ccache(request: Request, directory: str) -> Request:
    """Return ``request`` with ccache before the compilers, its cache in ``directory``.

    DEFAULT is ``$XDG_CACHE_HOME/xbuild/ccache/CHOST``. Raises TargetError, UsageError, HostUnable.
    """
    with DirectoryReader(request.target) as reader:
        survey = survey_directory(reader)
        assert survey.arch is not None
        chost = chost_for(survey.arch.chost, survey.libc)
        compilers = compilers_in(reader)
        files = sorted({*compilers.values(), *_compilers_proper(reader)})
        identity = _identity(reader, [*files, *_libraries(reader, compilers)])
    if directory == DEFAULT:
        store = HostPath(os.path.normpath(f"{native_place('..')}/ccache/{chost}"))
    else:
        store = HostPath(os.path.abspath(os.path.expanduser(directory)))
    try:
        os.makedirs(store, exist_ok=True)
        if directory == DEFAULT:
            os.chmod(store, 0o1777)  # users of the tree write to it as well; nobody else gets here
    except OSError as error:
        raise HostUnable(
            f"Cannot make the directory of ccache {store}: {error.strerror}",
            "--ccache=DIR names another",
        ) from error
    environment = {
        "CCACHE_DIR": _INSIDE,
        "CCACHE_COMPILERCHECK": f"string:{identity}",
        # A compiler that is replaced while the container runs is another one from then on.
        "CCACHE_EXTRAFILES": ":".join(files),
    }
    before = stand_before(request, "ccache", tuple(sorted(compilers)), environment)
    return replace(before, binds=(*before.binds, BindRequest(store, _INSIDE)))


def _compilers_proper(reader: DirectoryReader) -> list[GuestPath]:
    """Return the compilers that GCC's drivers start, and the assembler."""
    found = []
    for top in ("/usr/lib/gcc", "/usr/libexec/gcc"):
        for triplet in _names(reader, top):
            for version in _names(reader, f"{top}/{triplet}"):
                place = f"{top}/{triplet}/{version}"
                paths = (f"{place}/{name}" for name in _names(reader, place))
                found += [GuestPath(path) for path in paths if _PROPER.fullmatch(path)]
    with contextlib.suppress(TargetError):
        found.append(reader.resolve(GuestPath("/usr/bin/as")))
    return found


def _libraries(reader: DirectoryReader, compilers: dict[str, GuestPath]) -> list[GuestPath]:
    """Return the libraries that do clang's work, where there is a clang."""
    if not any(name.startswith("clang") for name in compilers):
        return []
    below = (f"/usr/lib/{name}" for name in _names(reader, "/usr/lib") if "-linux-" in name)
    found = set()
    for place in ("/usr/lib", "/usr/lib64", *below):
        for name in _names(reader, place):
            if _OF_CLANG.match(name):
                with contextlib.suppress(TargetError):
                    found.add(reader.resolve(GuestPath(f"{place}/{name}")))
    return sorted(found)


def _names(reader: DirectoryReader, directory: str) -> tuple[str, ...]:
    try:
        return reader.listdir(GuestPath(directory))
    except TargetError:
        return ()


def _identity(reader: DirectoryReader, files: list[GuestPath]) -> str:
    """Return a digest of the compilers' contents."""
    digests = Digests(f"{reader.label} compilers")
    lines = []
    for path in files:
        with reader.open(path) as file:
            lines.append(f"{os.path.basename(path)} {digests.of(file.fileno())}\n")
    digests.keep()
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
