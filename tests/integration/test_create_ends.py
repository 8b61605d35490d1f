"""A create that is interrupted: nothing half-made looks whole, and the next one clears up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.crafted import make_tar
from tests.integration.test_create_tarball import create, write
from tests.runs import Kind, Runner
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
MANY = 2000
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def large() -> bytes:
    """An archive of more than a pipe holds."""
    return make_tar({f"d{number % 100}/f{number}": bytes(1000) for number in range(MANY)})


@contextmanager
def under_way(runner: Runner, place: HostPath, source: str) -> Iterator[subprocess.Popen[str]]:
    """Start a create and give it when it has begun to write; it does not go on meanwhile."""
    argv = runner.user.argv([*runner.xbuild, "create", f"{place}/tree", "--from", source])
    with subprocess.Popen(
        argv, stderr=subprocess.DEVNULL, text=True, env=runner.user.environment(), cwd=place
    ) as process:
        wait_for(lambda: os.path.exists(f"{place}/.tree.xbuild-create/tree/d1"))
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            tar = int(file.read())
        os.kill(tar, signal.SIGSTOP)
        yield process
        with suppress(ProcessLookupError):
            os.kill(tar, signal.SIGCONT)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def users_of(place: HostPath) -> list[str]:
    """Return the processes that have a file of ``place`` open, or are in it."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        links = [f"/proc/{name}/{kind}" for kind in ("cwd", "root")]
        try:
            links += [f"/proc/{name}/fd/{fd}" for fd in os.listdir(f"/proc/{name}/fd")]
            found += [name for link in links if os.readlink(link).startswith(f"{place}/.tree")]
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", ["root", "range"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted(
    kind: Kind,
    number: signal.Signals,
    runner_of: Callable[[Kind], Runner],
    new_place: NewPlace,
    large: bytes,
) -> None:
    runner = runner_of(kind)
    place = new_place(runner.user)
    source = write(place, "a.tar", large)
    with under_way(runner, place, source) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == (130 if number == signal.SIGINT else -9)
    wait_for(lambda: not users_of(place))
    left = {"a.tar"} if number == signal.SIGINT else {"a.tar", ".tree.xbuild-create"}
    assert set(os.listdir(place)) == left
    done = create(runner, f"{place}/tree", source)
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(place)) == {"a.tar", "tree"}
    assert sum(len(files) for _, _, files in os.walk(f"{place}/tree")) == MANY


def test_two_of_one_target(ranged: Runner, new_place: NewPlace, large: bytes) -> None:
    place = new_place(ranged.user)
    source = write(place, "a.tar", large)
    with under_way(ranged, place, source) as process:
        second = create(ranged, f"{place}/tree", source)
        assert second.returncode == 125
        assert f"is being made by another process ({process.pid})" in second.stderr
    assert process.returncode == 0
    assert set(os.listdir(place)) == {"a.tar", "tree"}


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers: its host and port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("debian:bookworm", ("--mirror", "http://SILENT/debian")),
        ("docker://SILENT/image", ()),
    ],
)
def test_interrupted_while_others_work(
    source: str,
    options: tuple[str, ...],
    number: signal.Signals,
    silent: str,
    ranged: Runner,
    new_place: NewPlace,
) -> None:
    """mmdebstrap and skopeo end with it, and nothing is tried again."""
    place = new_place(ranged.user)
    words = [text.replace("SILENT", silent) for text in ("--from", source, *options)]
    argv = ranged.user.argv([*ranged.xbuild, "create", f"{place}/tree", *words, "--arch", "arm64"])
    with subprocess.Popen(
        argv, stderr=subprocess.DEVNULL, env=ranged.user.environment(), cwd=place
    ) as process:
        wait_for(lambda: has_connection(silent))
        process.send_signal(number)
        status = process.wait(PATIENCE_S)
    assert status == {signal.SIGINT: 130, signal.SIGKILL: -9}.get(number, status)
    assert status != 0
    wait_for(lambda: not has_connection(silent))
    wait_for(lambda: not users_of(place))
    assert set(os.listdir(place)) <= ({".tree.xbuild-create"} if number != signal.SIGINT else set())


def has_connection(server: str) -> bool:
    """Tell whether a process of this machine has a connection to a server on it."""
    port = f"{int(server.rpartition(':')[2]):04X}"
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    established = "01"
    return any(row[2].endswith(f":{port}") and row[3] == established for row in rows)
