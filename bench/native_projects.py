"""The projects that bench.native builds: sources of Debian's, and how each is built.

The upstream archive of the Debian source package is fetched through the host's apt, in a state of
its own, and kept in xbuild's cache.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xbuild.source.cache import cache_directory
from xbuild.source.mirror import find_mirrors

FLAGS = "-g -O2 -fstack-protector-strong -Wformat -Werror=format-security"

# $HOST is --host=… where the build crosses, and empty inside the tree.
PRELUDE = f"""
set -e
export CFLAGS='{FLAGS}' CXXFLAGS='{FLAGS}' LC_ALL=C SOURCE_DATE_EPOCH=1700000000
export CC CXX AR RANLIB
"""

JSONCPP_MAKEFILE = """
SOURCES := $(wildcard src/lib_json/*.cpp src/test_lib_json/*.cpp src/jsontestrunner/*.cpp)
OBJECTS := $(SOURCES:.cpp=.o)
LIBRARY := $(filter src/lib_json/%,$(OBJECTS))
all: libjsoncpp.so jsontest runner
%.o: %.cpp ; $(CXX) $(CXXFLAGS) -fPIC -Iinclude -c $< -o $@
libjsoncpp.a: $(LIBRARY) ; $(AR) rcs $@ $^
libjsoncpp.so: $(LIBRARY) ; $(CXX) -shared -o $@ $^
jsontest: $(filter src/test_lib_json/%,$(OBJECTS)) libjsoncpp.a ; $(CXX) -o $@ $^
runner: $(filter src/jsontestrunner/%,$(OBJECTS)) libjsoncpp.a ; $(CXX) -o $@ $^
"""


@dataclass(frozen=True)
class Project:
    """A source package and the shell that builds it in its unpacked directory."""

    name: str
    package: str
    build: str
    is_configure: bool = False


PROJECTS = (
    Project("zlib", "zlib", "CHOST=${HOST#--host=} ./configure && make -j$JOBS"),
    Project(
        "lua",
        "lua5.4",
        'make -j$JOBS -C src MYCFLAGS="$CFLAGS" CC="$CC -std=gnu99" AR="$AR rcu" RANLIB="$RANLIB"'
        " posix",
    ),
    Project("hello", "hello", "./configure -q $HOST && make -j$JOBS", is_configure=True),
    Project("jsoncpp", "libjsoncpp", "make -j$JOBS -f bench.mk"),
)


def fetch(packages: list[str], suite: str) -> dict[str, Path]:
    """Return the upstream archive of each source package; fetched where it is not in the cache."""
    place = Path(cache_directory()) / "bench" / "sources" / suite
    place.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if _archive(place, package) is None:
            _fetch(place, package, suite)
    found = {package: _archive(place, package) for package in packages}
    missing = [package for package, path in found.items() if path is None]
    if missing:
        raise SystemExit(f"bench: no source archive of {', '.join(missing)}")
    return {package: path for package, path in found.items() if path is not None}


def _archive(place: Path, package: str) -> Path | None:
    return next(iter(sorted(place.glob(f"{package}_*.orig.tar.*[!c]"))), None)


def _fetch(place: Path, package: str, suite: str) -> None:
    mirror = find_mirrors()[0]
    apt = place / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "parts"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    source = f"deb-src [signed-by={mirror.keyring}] {mirror.uri} {suite} main\n"
    (apt / "sources.list").write_text(source)
    settings = {
        "Dir::State": f"{apt}/state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": f"{apt}/cache",
        "Dir::Etc::sourcelist": f"{apt}/sources.list",
        "Dir::Etc::sourceparts": f"{apt}/parts",
        "APT::Sandbox::User": "root",
    }
    lines = "".join(f'{key} "{value}";\n' for key, value in settings.items())
    (apt / "apt.conf").write_text(lines)
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    for arguments in (["update"], ["source", "--tar-only", "--download-only", package]):
        # A mirror in the middle of an update may lack the package's other files.
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 and _archive(place, package) is None and arguments != ["update"]:
            raise SystemExit(f"bench: cannot fetch the source of {package}: {done.stderr.strip()}")


def unpack(archive: Path, project: Project, place: Path) -> None:
    """Unpack a project's archive into the new directory ``place``."""
    place.mkdir(parents=True)
    command = ["tar", "-x", "--strip-components=1", "--no-same-owner", "-C", str(place)]
    subprocess.run([*command, "-f", str(archive)], check=True)
    if project.name == "jsoncpp":
        (place / "bench.mk").write_text(JSONCPP_MAKEFILE)


def made_files(place: Path, archive: Path) -> Iterator[Path]:
    """Yield what a build made in ``place``: files that are not in the archive, by relative path."""
    listed = subprocess.run(
        ["tar", "-tf", str(archive)], check=True, capture_output=True, text=True
    )
    given = {line.partition("/")[2] for line in listed.stdout.splitlines()}
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            relative = path.relative_to(place)
            if str(relative) not in given and relative.name != "bench.mk":
                yield relative
