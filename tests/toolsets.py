"""Sets of native tools made by hand: the host's static busybox stands in for programs of a tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from tests.capability import require
from tests.runs import Runner
from xbuild.binary.arch import host_arch
from xbuild.record import GuestPath, HostPath
from xbuild.toolset.manifest import File, Tool, Toolset, compute_digest, write_manifest

BUSYBOX = "/bin/busybox"
# What busybox's arch and the tree's own print: proof of which one ran that needs no /proc.
NATIVE = host_arch().uname


class NativeRunner:
    """``xbuild run --native`` as ``runner``, with a cache of this test's own at ``cache``."""

    def __init__(self, runner: Runner, cache: HostPath) -> None:
        self.runner = runner
        self.architecture = "aarch64"
        self.cache = cache
        runner.user.run(["mkdir", "-p", cache], check=True)

    def prepare(self, tree: HostPath, *paths: str, **fields: Any) -> HostPath:
        """Make a set of busybox for programs of ``tree``, with ``fields`` of Tool for each."""
        require("busybox", os.path.exists(BUSYBOX), "no static busybox on this host")
        settings: dict[str, Any] = {"level": "exact", "verdict": "identical"} | fields
        tools = tuple(
            Tool(
                GuestPath(path),
                digest_of(f"{tree}{path}"),
                "other",
                native=f"bin/{os.path.basename(path)}",
                **settings,
            )
            for path in paths
        )
        return self.store(tools)

    def store(self, tools: tuple[Tool, ...]) -> HostPath:
        """Make a set in which each native program is busybox; return where it is."""
        sets = f"{self.cache}/xbuild/native/sets"
        natives = [tool.native for tool in tools if tool.native]
        files = tuple(File(path, digest_of(BUSYBOX)) for path in natives)
        made = Toolset(
            self.architecture, host_arch().name, "busybox", (), tools, files, corpus="tests"
        )
        place = HostPath(f"{sets}/{compute_digest(made)}")
        for path in natives:
            os.makedirs(os.path.dirname(f"{place}/root/{path}"), exist_ok=True)
            shutil.copy(BUSYBOX, f"{place}/root/{path}")
        write_manifest(made, place)
        user = self.runner.user
        subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", self.cache], check=True)
        return place

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run with --native and return what came of it."""
        environment = self.runner.user.environment(XDG_CACHE_HOME=self.cache)
        return self.runner.run("--native", *arguments, env=environment, **options)

    def output(self, *arguments: str, **options: Any) -> str:
        """Run with --native what must succeed and return its standard output."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


NativeAs = Callable[[Runner], NativeRunner]


def digest_of(path: str) -> str:
    """Return a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
