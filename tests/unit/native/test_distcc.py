"""Servers in words, what makes two sets the same, and a server's answer."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import DistccRefused, UsageError
from xbuild.native.distcc import (
    Server,
    ask_server,
    compiler_names,
    compilers_key,
    identity_command,
    parse_servers,
    unproven,
)
from xbuild.record import GuestPath, replace
from xbuild.toolset.manifest import File, Tool, Toolset

GCC = Tool(GuestPath("/usr/bin/aarch64-linux-gnu-gcc-14"), "a" * 64, "driver", "bin/gcc")
GCC = replace(GCC, level="fast")
CC1 = Tool(GuestPath("/usr/libexec/gcc/x/14/cc1"), "b" * 64, "compiler", "libexec/cc1")
CC1 = replace(CC1, level="exact", verdict="identical")
FILES = (File("bin/gcc", "c" * 64), File("libexec/cc1", "d" * 64))


def toolset(*tools: Tool, files: tuple[File, ...] = FILES) -> Toolset:
    return Toolset("aarch64", "x86_64", "tests", (), tools, files)


def test_servers_in_words() -> None:
    assert parse_servers("a,b/8,c:4000,10.0.0.1:4001/3,[::1]:4002/1") == (
        Server("a"),
        Server("b", slots=8),
        Server("c", 4000),
        Server("10.0.0.1", 4001, 3),
        Server("[::1]", 4002, 1),
    )
    assert str(Server("[::1]", 4002, 1)) == "[::1]:4002/1"


@pytest.mark.parametrize("text", ["/4", "a/", "a/x", "a:70000", "a b", "a/0", ":1", "-x=y", "@a"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Not a distcc server"):
        parse_servers(text)


@given(st.text())
def test_any_text_is_servers_or_a_usage_error(text: str) -> None:
    try:
        servers = parse_servers(text)
    except UsageError:
        return
    for server in servers:
        assert not set(str(server)) & set(" \n,@#"), "distcc's list of hosts has meaning for these"


def test_sets_with_the_same_compilers_have_one_key() -> None:
    sed = Tool(GuestPath("/usr/bin/sed"), "e" * 64, "text", "bin/sed", level="exact")
    key = compilers_key(toolset(GCC, CC1))
    assert key == compilers_key(toolset(CC1, GCC, sed))
    assert key == compilers_key(replace(toolset(GCC, CC1), provider="elsewhere"))


@pytest.mark.parametrize(
    "other",
    [
        toolset(GCC, replace(CC1, sha256="0" * 64)),
        toolset(GCC, CC1, files=(FILES[0], File("libexec/cc1", "0" * 64))),
        toolset(GCC, replace(CC1, level="none")),
        toolset(CC1),
        replace(toolset(GCC, CC1), architecture="arm"),
    ],
)
def test_another_compiler_is_another_key(other: Toolset) -> None:
    assert compilers_key(other) != compilers_key(toolset(GCC, CC1))


def test_names_of_the_only_version() -> None:
    assert set(compiler_names(toolset(GCC, CC1))) == {
        *("gcc", "cc", "gcc-14", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-cc"),
        "aarch64-linux-gnu-gcc-14",
    }


def test_with_two_versions_a_name_without_one_is_nobody_s() -> None:
    older = replace(GCC, path=GuestPath("/usr/bin/aarch64-linux-gnu-gcc-12"), native="bin/gcc-12")
    names = compiler_names(toolset(GCC, older))
    assert "gcc" not in names
    assert names["gcc-12"] == older
    assert names["aarch64-linux-gnu-gcc-14"] == GCC


def test_an_assembler_that_differs_is_unproven() -> None:
    assembler = Tool(GuestPath("/usr/bin/as"), "f" * 64, "assembler", "bin/as", verdict="differs")
    assert unproven(toolset(GCC, CC1)) == ()
    assert unproven(toolset(GCC, CC1, assembler)) == (assembler,)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"DONE00000001STAT00000100SERR00000000SOUT00000000DOTO00000000",
        b"DONE00000001STAT00000000SERR00000000SOUT00000000DOTO00000004text",
        b"DONE00000001STAT0000000",
        b"DONE0000000",
    ],
)
def test_an_answer_that_is_no_object_is_a_refusal(reply: bytes) -> None:
    with pytest.raises(DistccRefused, match="has not this set"):
        ask(reply)


def test_an_object_is_consent() -> None:
    object_file = b"\x7fELF and more"
    size = b"%08x" % len(object_file)
    request = ask(b"DONE00000001STAT00000000SERR00000000SOUT00000000DOTO" + size + object_file)
    assert request.startswith(b"DIST00000001ARGC00000005ARGV")
    assert identity_command("key").encode() in request


def ask(reply: bytes) -> bytes:
    """Ask a server that answers with ``reply``; return what it was asked."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                received.append(connection.recv(1 << 16))
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            ask_server(Server("127.0.0.1", listening.getsockname()[1]), "key")
        finally:
            thread.join()
    return received[0]


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DistccRefused, match=f"127.0.0.1:{port}/2 cannot be reached"):
        ask_server(Server("127.0.0.1", port), "key")
