"""Reading profiles: what is taken, and what is refused with its file and line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import ProfileError, UsageError
from xbuild.plan.profile import (
    SIZE_LIMIT,
    Key,
    Profile,
    find_profile,
    key_lines,
    list_profiles,
    parse_profile,
    read_profile,
)
from xbuild.record import HostPath


def _even(text: str) -> None:
    if len(text) % 2:
        raise UsageError(f"Odd: {text}", "add a letter")


KEYS = (
    Key("bind", "many", "source"),
    Key("bind_ro", "many", "source"),
    Key("setenv", "many", is_table=True),
    Key("env_file", "many", "whole"),
    Key("hostname", "one", check=_even),
    Key("read_only", "nothing"),
)
FILE = HostPath("/etc/xbuild/profiles/x.toml")


def _parse(text: str, path: HostPath = FILE) -> Profile:
    return parse_profile(path, text, KEYS)


def _complaint(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        _parse(text)
    assert caught.value.exit_status == 2
    return caught.value.message.removeprefix(str(FILE))


def test_everything_of_a_profile_is_taken() -> None:
    text = """
description = "all of it"
bind = ["/srv:/srv", "rel:/x"]
env_file = ["vars", "/etc/vars"]
hostname = "pi"
read_only = true
[setenv]
A = "1"
B = "x=y"
"""
    assert _parse(text) == Profile(
        FILE,
        "all of it",
        (("read_only", True),),
        (
            ("bind", ("/srv:/srv", "/etc/xbuild/profiles/rel:/x")),
            ("env_file", ("/etc/xbuild/profiles/vars", "/etc/vars")),
            ("hostname", ("pi",)),
            ("setenv", ("A=1", "B=x=y")),
        ),
    )


def test_empty_profile_says_nothing() -> None:
    assert _parse("") == Profile(FILE, "", (), ())


def test_variables_may_stand_in_a_list() -> None:
    assert _parse('setenv = ["A=1", "PASSED_ON"]').values == (("setenv", ("A=1", "PASSED_ON")),)


def test_home_is_expanded_in_whole_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert _parse('env_file = ["~/vars"]').values == (("env_file", ("/home/me/vars",)),)


def test_home_in_a_bind_is_left_to_the_bind() -> None:
    assert _parse('bind = ["~/src:/src"]').values == (("bind", ("~/src:/src",)),)


def test_directory_with_a_colon_is_escaped_in_a_bind() -> None:
    profile = _parse('bind = ["rel:/x"]', HostPath("/a:b\\c/x.toml"))
    assert profile.values == (("bind", ("/a\\:b\\\\c/rel:/x",)),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('\n\nbnd = ["/a"]', ":3: unknown key 'bnd'; did you mean bind?"),
        ("[colours]\nred = 1", ":1: unknown key 'colours'"),
        ("a.b = 1", ":1: unknown key 'a'"),
        ("[[bind]]\nx = 1", ":1: bind takes an array of strings, not with a table"),
        ("# x\nread_only = 1", ":2: read_only takes true or false, not an integer"),
        ("read_only = 'yes'", ":1: read_only takes true or false, not a string"),
        ("hostname = true", ":1: hostname takes a string, not a boolean"),
        ("hostname = ['a']", ":1: hostname takes a string, not an array"),
        ("hostname = 1.5", ":1: hostname takes a string, not a float"),
        ("hostname = 1979-05-27", ":1: hostname takes a string, not a date or time"),
        ("bind = '/a'", ":1: bind takes an array of strings, not a string"),
        ("bind = ['/a',\n 3]", ":1: bind takes an array of strings, not with an integer"),
        ("bind = {a = '/a'}", ":1: bind takes an array of strings, not a table"),
        ("setenv = 'A=1'", ":1: setenv takes an array of strings or a table, not a string"),
        ("[setenv]\nA='1'\nB=2", ":3: setenv.B takes a string, not an integer"),
        ("\n[setenv]\n'A=B'='1'", ":3: not the name of a variable: 'A=B'"),
        ('setenv.A = "1"\nsetenv."" = "x"', ":2: not the name of a variable: ''"),
        ("description = 3", ":1: description takes a string, not an integer"),
        ("\nhostname = 'odd'", ":2: Odd: odd"),
        ('hostname = "a\\u0000"', ":1: hostname holds a NUL character"),
    ],
)
def test_wrong_content_is_refused_with_its_line(text: str, complaint: str) -> None:
    assert _complaint(text) == complaint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bind = [\n'/a'", 2),
        ("a = 1\nb = \nc = 2\n", 2),
        ('a = 1\n\nb = """x\n', 3),
        ("a = 1\na = 2\n", 2),
        ("a b = 1", 1),
        ("[x\n", 1),
        ("= 1", 1),
    ],
)
def test_wrong_syntax_is_refused_with_its_line(text: str, line: int) -> None:
    complaint = _complaint(text)
    assert complaint.startswith(f":{line}: not TOML: ")
    assert "column" not in complaint
    assert "(at" not in complaint


def test_check_keeps_its_hint() -> None:
    with pytest.raises(ProfileError) as caught:
        _parse("hostname = 'odd'")
    assert caught.value.hint == "add a letter"


def test_unknown_key_without_a_close_one_lists_all() -> None:
    with pytest.raises(ProfileError) as caught:
        _parse("zzzz = 1")
    assert caught.value.hint.startswith("a profile has description, arch, bind, bind_ro, ")


def test_deep_nesting_is_refused() -> None:
    assert "nested too deeply" in _complaint("a = " + "[" * 30000)


def test_lines_count_from_a_file_with_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b'# one\r\nhostname = "pi"\r\nbnd = []\r\n')
    with pytest.raises(ProfileError, match=r"x\.toml:3: unknown key 'bnd'"):
        read_profile(HostPath(str(path)), KEYS)


def test_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"# a\n# b\n# \xff\n")
    with pytest.raises(ProfileError, match=r"x\.toml:3: not UTF-8"):
        read_profile(HostPath(str(path)), KEYS)


def test_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (SIZE_LIMIT + 1))
    for path in (large, tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(ProfileError):
            read_profile(HostPath(str(path)), KEYS)


def test_first_directory_that_has_a_name_wins(tmp_path: Path) -> None:
    directories = _directories(tmp_path, user=["a"], system=["a", "b"])
    assert find_profile("a", directories) == f"{directories[0]}/a.toml"
    assert find_profile("b", directories) == f"{directories[1]}/b.toml"


def test_all_profiles_are_listed_in_the_order_of_their_places(tmp_path: Path) -> None:
    directories = _directories(tmp_path, user=["z"], system=["a", "z"])
    listed = [os.path.relpath(path, tmp_path) for path in list_profiles(directories)]
    assert listed == ["user/z.toml", "system/a.toml", "system/z.toml"]


def test_path_is_taken_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    directories = _directories(tmp_path, user=["a"])
    assert find_profile("a.toml", directories) == f"{tmp_path}/a.toml"
    assert find_profile("./a", directories) == f"{tmp_path}/a"
    assert find_profile("~/a.toml", directories) == "/home/me/a.toml"


def test_name_that_is_nowhere_is_refused_with_a_close_one(tmp_path: Path) -> None:
    directories = _directories(tmp_path, user=["build"], system=["other"])
    with pytest.raises(ProfileError) as caught:
        find_profile("biuld", directories)
    assert str(directories[0]) in caught.value.message
    assert caught.value.hint == "did you mean build?"
    with pytest.raises(ProfileError) as caught:
        find_profile("zzzzzzz", directories)
    assert caught.value.hint == "there are build, other"


def _directories(tmp_path: Path, **names: list[str]) -> tuple[HostPath, ...]:
    for place, files in names.items():
        (tmp_path / place).mkdir()
        for name in files:
            (tmp_path / place / f"{name}.toml").touch()
    (tmp_path / "user" / "README").touch()
    return (*(HostPath(f"{tmp_path}/{place}") for place in names), HostPath(f"{tmp_path}/absent"))


_VALUES = st.sampled_from(
    (
        "1",
        '"one line # = [x] \\" more"',
        "'literal \\ \"'",
        '"""\nfake = 1\n[fake]\n# fake\n"""',
        "'''\nfake = [\n'''",
        '"""ends with quotes\\""""""',
        '[\n  "a",  # fake = 1\n\n  "b",\n]',
        "[[1, 2],\n[3]]",
        "{ x = 1, y = [2] }",
        "1979-05-27T07:32:00Z",
        "[ ]  # comment",
    )
)
_NOISE = st.lists(st.sampled_from(("", "# comment", "   ", "#[fake]", "\t# x = 1")), max_size=2)
_PLACES = st.sampled_from(("top", "table", "dotted", "quoted"))


@given(st.lists(st.tuples(_PLACES, _VALUES, _NOISE), max_size=12))
def test_lines_of_keys_are_those_they_are_written_on(
    statements: list[tuple[str, str, list[str]]],
) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, (place, value, noise) in enumerate(statements):
        lines += noise
        if place == "table":
            table = (f"table{number}",)
            expected[table] = len(lines) + 1
            lines.append(f"[ {table[0]} ] # comment")
        path, written = {
            "dotted": ((f"key{number}", "a"), f"key{number} . a"),
            "quoted": ((f"key {number}",), f'"key {number}"'),
        }.get(place, ((f"key{number}",), f"key{number}"))
        expected[table + path] = len(lines) + 1
        lines += f"{written} = {value}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found.get(path) for path in expected} == expected
