"""A create that is interrupted: nothing half-made looks whole, and the next one clears up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.bootstrap_archive import Maker, publish_ubuntu, readable_keyring
from tests.conftest import OpenTerminal
from tests.crafted import busybox, make_tar
from tests.integration.test_create_tarball import create, write
from tests.loopback import Site
from tests.openpgp import Signer
from tests.patience import PATIENCE_S, WORK_S, wait_for
from tests.runs import Kind, Runner
from tests.terminals import status_of
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
MANY = 2000
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
LEFT = {number: (".tree.xbuild-create",) if number == signal.SIGKILL else () for number in SIGNALS}


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


def users_of(place: HostPath) -> list[str]:
    """Return the processes that have a file of ``place`` open, or are in it."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        links = [f"/proc/{name}/{kind}" for kind in ("cwd", "root")]
        try:
            links += [f"/proc/{name}/fd/{fd}" for fd in os.listdir(f"/proc/{name}/fd")]
            found += [name for link in links if os.readlink(link).startswith(f"{place}/.t")]
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", ["root", "range"])
@pytest.mark.parametrize("number", SIGNALS)
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
        assert process.wait(PATIENCE_S) == STATUS[number]
    wait_for(lambda: not users_of(place))
    assert set(os.listdir(place)) == {"a.tar", *LEFT[number]}
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
        ("debian:bookworm", ("--mirror", "http://SILENT/debian", "--arch", "arm64")),
        ("docker://SILENT/image", ("--arch", "arm64")),
        ("http://SILENT/tree.tar.gz", ("--sha256", "0" * 64)),
        ("stage3:arm64-openrc", ("--mirror", "http://SILENT", "--keyring", "KEYRING")),
    ],
)
def test_interrupted_while_others_work(
    source: str,
    options: tuple[str, ...],
    number: signal.Signals,
    silent: str,
    keys: Signer,
    ranged: Runner,
    new_place: NewPlace,
) -> None:
    """A download, mmdebstrap and skopeo end with it, and nothing is tried again."""
    place = new_place(ranged.user)
    own = HostPath(f"{place}/own")
    os.mkdir(own)
    os.chown(own, ranged.user.uid, ranged.user.gid)
    keyring = readable_keyring(keys, "good", place)
    words = [
        text.replace("SILENT", silent).replace("KEYRING", keyring)
        for text in ("--from", source, *options)
    ]
    with subprocess.Popen(
        ranged.user.argv([*ranged.xbuild, "create", f"{own}/tree", *words]),
        stderr=subprocess.PIPE,
        text=True,
        env=ranged.user.environment(XDG_CACHE_HOME=f"{place}/cache"),
        cwd=place,
    ) as process:
        wait_for(lambda: has_connection(silent) or process.poll() is not None)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == STATUS[number], said
    assert "trying again" not in said
    is_told = f"note: interrupted: {own}/tree is not made, and nothing of it is left\n" in said
    assert is_told == (number != signal.SIGKILL)
    wait_for(lambda: not has_connection(silent))
    wait_for(lambda: not users_of(own))
    assert set(os.listdir(own)) == set(LEFT[number])


def configuring(maker: Maker, site: Site, keys: Signer, debs: tuple[str, ...]) -> list[str]:
    """Return the command line of a create that configures packages, natively in most places."""
    place = publish_ubuntu(site, keys, debs, "amd64")
    options = ("--variant", "essential", "--mirror", f"{site.url}{place}")
    return maker.argv("--arch", "amd64", *options, "--keyring", maker.keyring)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_while_packages_are_configured(
    number: signal.Signals,
    maker_of: Callable[[Kind], Maker],
    site: Site,
    keys: Signer,
    debs_of: Callable[[str], tuple[str, ...]],
) -> None:
    """Their files, of several users, are cleared away by an ordinary one, or by its next."""
    maker = maker_of("range")
    with subprocess.Popen(
        maker.runner.user.argv(configuring(maker, site, keys, debs_of("amd64"))),
        stderr=subprocess.PIPE,
        text=True,
        env=maker.runner.user.environment(),
        cwd=maker.place,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any("installing essential packages" in line for line in lines)
        process.send_signal(number)
        said = "".join(lines)
        assert process.wait(PATIENCE_S) == STATUS[number], said
    wait_for(lambda: not users_of(maker.own))
    assert set(os.listdir(maker.own)) == set(LEFT[number])
    source = write(maker.place, "a.tar", make_tar(busybox("arm64")))
    done = create(maker.runner, maker.tree, source)
    assert done.returncode == 0, done.stderr
    assert os.listdir(maker.own) == ["tree"]
    assert sorted(os.listdir(maker.tree)) == sorted(
        {name.split("/")[0] for name in busybox("arm64")}
    )


def test_interrupted_from_a_terminal(
    maker_of: Callable[[Kind], Maker],
    site: Site,
    keys: Signer,
    debs_of: Callable[[str], tuple[str, ...]],
    open_terminal: OpenTerminal,
) -> None:
    """^C reaches all in the foreground; one of them says so, once."""
    maker = maker_of("range")
    command = configuring(maker, site, keys, debs_of("amd64"))
    session = open_terminal(command, user=maker.runner.user, timeout_s=WORK_S)
    session.expect(r"installing essential packages, \d+%")
    session.sendintr()
    session.expect_exact(f"interrupted: {maker.tree} is not made, and nothing of it is left")
    assert status_of(session) == 130
    assert "Traceback" not in (session.before or "")
    assert os.listdir(maker.own) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_while_it_is_packed(
    number: signal.Signals, ranged: Runner, new_place: NewPlace
) -> None:
    """xz takes seconds for what it cannot make smaller."""
    place = new_place(ranged.user)
    source = write(place, "a.tar", make_tar({"blob": os.urandom(30 << 20)}))
    with subprocess.Popen(
        ranged.user.argv([*ranged.xbuild, "create", f"{place}/t.tar.xz", "--from", source]),
        stderr=subprocess.DEVNULL,
        env=ranged.user.environment(),
        cwd=place,
    ) as process:
        wait_for(lambda: os.path.exists(f"{place}/.t.tar.xz.xbuild-create/archive"))
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == STATUS[number]
    wait_for(lambda: not users_of(place))
    left = {name.replace(".tree.", ".t.tar.xz.") for name in LEFT[number]}
    assert set(os.listdir(place)) == {"a.tar", *left}


def has_connection(server: str) -> bool:
    """Tell whether a process of this machine has a connection to a server on it."""
    port = f"{int(server.rpartition(':')[2]):04X}"
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    established = "01"
    return any(row[2].endswith(f":{port}") and row[3] == established for row in rows)
