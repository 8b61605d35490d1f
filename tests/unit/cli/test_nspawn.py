"""Settings of systemd-nspawn, and what they are here."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from xbuild.cli.import_nspawn import command
from xbuild.cli.merge import load_profile
from xbuild.cli.nspawn import translate
from xbuild.errors import UsageError

FILE = """\
# a comment
[Exec]
Ephemeral=yes
User=pi
Environment="A=b c" D=e
Environment=F=g
Capability=CAP_NET_ADMIN CAP_SYS_TIME
Hostname = board-1
ProcessTwo=yes
PrivateUsers=no

[Files]
Bind=/srv/a:/b
Bind=/srv/\\
     c
BindReadOnly=/etc/hosts
TemporaryFileSystem=/var/tmp:size=1g
Volatile=yes
ReadOnly=off
Overlay=/srv/l:/srv/u:/x
Inaccessible=/boot

[Network]
Private=yes
"""


def test_what_has_a_meaning_here() -> None:
    assert dict(translate(FILE).settings) == {
        "user": "pi",
        "hostname": "board-1",
        "private_users": "identity",
        "volatile": "yes",
        "network": "none",
        "ephemeral": True,
        "read_only": False,
        "setenv": ("A=b c", "D=e", "F=g"),
        "capability": ("cap_net_admin", "cap_sys_time"),
        "bind": ("/srv/a:/b", "/srv/ c"),
        "bind_ro": ("/etc/hosts",),
        "tmpfs": ("/var/tmp:size=1g",),
        "overlay": ("/srv/l:/srv/u:/x",),
        "inaccessible": ("/boot",),
    }
    assert translate(FILE).left_out == ()


def test_what_has_none_is_named_with_its_line() -> None:
    text = "[Exec]\nPersonality=arm\nParameters=a b\nLimitNOFILE=9\n[Network]\nBridge=br0\n"
    left = translate(text).left_out
    assert [(number, what) for number, what, _ in left] == [
        (2, "Personality=arm"),
        (3, "Parameters=a b"),
        (4, "LimitNOFILE=9"),
        (6, "Bridge=br0"),
    ]
    assert "read from the tree" in left[0][2]


def test_a_boot() -> None:
    text = "[Exec]\nBoot=yes\nKillSignal=SIGRTMIN+3\n"
    assert dict(translate(text).settings) == {"boot": True, "kill_signal": "SIGRTMIN+3"}


def test_values_that_make_no_sense_are_named_too() -> None:
    left = translate("[Files]\nBind=+/a:/b\nTemporaryFileSystem=relative\n").left_out
    assert [what for _, what, _ in left] == ["Bind=+/a:/b", "TemporaryFileSystem=relative"]


def test_an_empty_value_forgets_a_list() -> None:
    assert translate("[Files]\nBind=/a\nBind=\nBind=/b\n").settings == (("bind", ("/b",)),)


@pytest.mark.parametrize("text", ["User=x\n", "[Exec]\nnonsense\n"])
def test_not_such_a_file(text: str) -> None:
    with pytest.raises(UsageError, match="Line"):
        translate(text)


def test_what_is_printed_is_a_profile(tmp_path: Path) -> None:
    source = tmp_path / "x.nspawn"
    source.write_text(FILE + "[Exec]\nHostname=\\\n")
    done = CliRunner().invoke(command, [str(source)])
    profile = tmp_path / "x.toml"
    profile.write_text(done.output)
    assert tomllib.loads(done.output)["setenv"] == ["A=b c", "D=e", "F=g"]
    assert dict(load_profile(str(profile)).flags) == {"ephemeral": True, "read_only": False}


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), (b"\xff\n", "it is no text in UTF-8")]
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, why: str) -> None:
    source = tmp_path / "x.nspawn"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        command.main([str(source)], standalone_mode=False)
    assert caught.value.message == f"Cannot read {source}: {why}"
