"""Host lists of distcc's: what is taken, left out and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbuild.errors import UsageError
from xbuild.native.distcc import Server
from xbuild.native.distcc_hosts import DEFAULT, parse_hosts, read_hosts

LIST = """\
# ours
--randomize localhost/2  --localslots=4
build2/8 build3:4000/4,lzo
[fd00::1]:3632  # the far one
"""


def test_a_list() -> None:
    found = parse_hosts(LIST, "hosts")
    assert found.servers == (
        *(Server("build2", 3632, 8), Server("build3", 4000, 4)),
        Server("[fd00::1]", 3632, 2),
    )
    assert found.notes == (
        "hosts: --randomize is left out: xbuild chooses by itself",
        "hosts: localhost/2 is left out: xbuild chooses by itself",
        "hosts: --localslots=4 is left out: xbuild chooses by itself",
        "hosts: of build3:4000/4,lzo, lzo is left out",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hosts names no other machine"),
        ("localhost", "hosts names no other machine"),
        ("me@build2", "hosts: me@build2 is reached by ssh, which containers do not have"),
        ("build2:x", "Not a distcc server: 'build2:x'"),
        ("build;2", "Not a distcc server: 'build;2'"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_hosts(text, "hosts")
    assert caught.value.message == message


def test_where_distcc_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTCC_DIR", str(tmp_path))
    monkeypatch.setenv("DISTCC_HOSTS", "fromvariable/3")
    assert read_hosts(DEFAULT).servers == (Server("fromvariable", 3632, 3),)
    monkeypatch.delenv("DISTCC_HOSTS")
    with pytest.raises(UsageError):
        read_hosts(DEFAULT)
    (tmp_path / "hosts").write_text("fromfile\n")
    assert read_hosts(DEFAULT).servers == (Server("fromfile"),)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("binary", "absent", "."):
        with pytest.raises(UsageError):
            read_hosts(f"{tmp_path}/{name}")
