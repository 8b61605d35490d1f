"""Machines that share what they compile: ccache's storage on a server, distcc's list of hosts."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.capability import require
from tests.native_trees import CompilerTree, write_files
from tests.patience import await_server
from tests.runs import Runner, notes
from xbuild.record import HostPath

# Debian's redis-server is a link to this, which goes by its name; the package would start a daemon.
REDIS = "/usr/bin/redis-check-rdb"
COMPILE = "gcc -O2 -c part.c -o part.o && ccache --print-stats"
FILES = {"part.c": "int f(int a) { return a * 3; }\n"}
LOCAL_HITS = ("direct_cache_hit", "preprocessed_cache_hit")


@pytest.fixture
def tree(compiler_path: HostPath, root: Runner) -> CompilerTree:
    return CompilerTree(compiler_path, root)


@pytest.fixture
def redis(place: HostPath) -> Iterator[str]:
    """A redis on loopback, by its URL."""
    require("redis", os.path.exists(REDIS), "the package redis-tools is not installed")
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    program = f"{place}/redis-server"
    os.symlink(REDIS, program)
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=place) as server:
        await_server(f"127.0.0.1:{port}")
        yield f"redis://127.0.0.1:{port}"
        server.terminate()
    os.unlink(program)


class Store(BaseHTTPRequestHandler):
    """What ccache asks of a web server: GET, HEAD, PUT and DELETE of files (RFC 4918's least)."""

    content: dict[str, bytes]

    def do_GET(self) -> None:
        found = self.content.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.content[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, b"")

    def do_DELETE(self) -> None:
        self._answer(404 if self.content.pop(self.path, None) is None else 200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """A web server on loopback that takes files, by its URL."""
    handler = type("OwnStore", (Store,), {"content": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/cache"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["redis", "web"])
def storage(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def statistics(tree: CompilerTree, place: HostPath, name: str, storage: str) -> dict[str, int]:
    """Compile on ``name``, a machine with an empty cache of its own, as docs/ci.md has it."""
    work = write_files(f"{place}/{name}", FILES)
    done = tree.run(
        work,
        COMPILE,
        *(f"--ccache={place}/{name}-cache", "--setenv", "CCACHE_REMOTE_STORAGE"),
        env=tree.environment(CCACHE_REMOTE_STORAGE=storage),
    )
    assert done.returncode == 0, done.stderr
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def test_what_one_machine_has_compiled_another_has_from_the_server(
    tree: CompilerTree, place: HostPath, storage: str
) -> None:
    kind = storage.partition(":")[0]
    first = statistics(tree, place, f"first-{kind}", storage)
    assert (first["remote_storage_hit"], first["cache_miss"]) == (0, 1)
    assert sum(first[key] for key in LOCAL_HITS) == 0
    second = statistics(tree, place, f"second-{kind}", storage)
    assert second["cache_miss"] == 0
    assert second["remote_storage_hit"] > 0
    objects = [Path(place, f"{name}-{kind}", "part.o").read_bytes() for name in ("first", "second")]
    assert objects[0] == objects[1]


def test_a_server_that_is_away_costs_hits_alone(tree: CompilerTree, place: HostPath) -> None:
    found = statistics(tree, place, "alone", "redis://127.0.0.1:9")
    assert found["cache_miss"] == 1
    assert found["remote_storage_error"] > 0


def test_hosts_from_a_file_are_asked_as_those_of_distcc(
    tree: CompilerTree, place: HostPath
) -> None:
    work = write_files(f"{place}/jobs", FILES)
    hosts = f"{place}/hosts"
    with open(hosts, "w", encoding="ascii") as file:
        file.write("# ours\nlocalhost/2 127.0.0.1:9/4,lzo\n")
    done = tree.run(work, "gcc -c part.c && ls part.o", f"--jobs-from={hosts}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "part.o"
    said = notes(done)
    assert f"{hosts}: localhost/2 is left out: xbuild chooses by itself" in said
    assert any("127.0.0.1:9/4 cannot be reached: Connection refused" in text for text in said), said
    assert "no distcc server is left: all is compiled here" in said
