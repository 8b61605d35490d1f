"""The command line of ``xbuild run``, taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.cli.options import OPTIONS, Parsed, parse
from xbuild.errors import UsageError

LONG = {option.names[0]: option for option in OPTIONS}
_WORDS = st.text(min_size=0, max_size=8)


def parts(parsed: Parsed) -> tuple[str | None, tuple[str, ...], set[str], dict[str, list[str]]]:
    return parsed.target, parsed.command, parsed.flags, parsed.values


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], (None, (), set(), {})),
        (["tree"], ("tree", (), set(), {})),
        (["tree", "cmd", "-x", "--bind"], ("tree", ("cmd", "-x", "--bind"), set(), {})),
        (["tree", "-x", "cmd", "-x"], ("tree", ("cmd", "-x"), {"ephemeral"}, {})),
        (["-x", "tree", "--", "-x"], ("tree", ("-x",), {"ephemeral"}, {})),
        (["tree", "--", "--", "x"], ("tree", ("--", "x"), set(), {})),
        (["tree", "cmd", "--", "x"], ("tree", ("cmd", "--", "x"), set(), {})),
        (["--", "-tree", "cmd"], ("-tree", ("cmd",), set(), {})),
        (["--", "tree", "--", "-x"], ("tree", ("-x",), set(), {})),
        (["tree", "--"], ("tree", (), set(), {})),
        (["-", "cmd"], ("-", ("cmd",), set(), {})),
        (["tree", "-"], ("tree", ("-",), set(), {})),
        (["tree", ""], ("tree", ("",), set(), {})),
    ],
)
def test_tree_and_command(words: list[str], wanted: object) -> None:
    assert parts(parse(words)) == wanted


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--bind", "a:b"], {"bind": ["a:b"]}),
        (["--bind=a:b"], {"bind": ["a:b"]}),
        (["--bind", "a"], {"bind": ["a"]}),
        (["-ua"], {"user": ["a"]}),
        (["-u=a"], {"user": ["=a"]}),
        (["--bind="], {"bind": [""]}),
        (["--bind", "--", "--bind=x=y"], {"bind": ["--", "x=y"]}),
        (["-EA=1", "-E", "B", "--setenv=C="], {"setenv": ["A=1", "B", "C="]}),
        (["-xuroot"], {"user": ["root"]}),
        (["-xbu", "a"], {"user": ["a"]}),
        (["--user", "a", "--user=b"], {"user": ["a", "b"]}),
        (["--network", "none"], {"network": ["none"]}),
    ],
)
def test_values_in_every_form(words: list[str], values: dict[str, list[str]]) -> None:
    for order in ([*words, "tree"], ["tree", *words]):
        parsed = parse(order)
        assert (parsed.target, parsed.values) == ("tree", values)


def test_of_a_single_value_the_last_one_counts() -> None:
    parsed = parse(["--user", "a", "--user=b", "tree"])
    assert (parsed.one("user"), parsed.many("user"), parsed.one("cpu")) == ("b", ["a", "b"], None)


def test_clusters_of_flags() -> None:
    assert parse(["-xh", "tree"]).flags == {"ephemeral", "help"}
    assert parse(["-hx"]).flags == {"ephemeral", "help"}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--ephemerall"], "No such option: --ephemerall", "did you mean --ephemeral?"),
        (["--qqqqqq=1"], "No such option: --qqqqqq", "--help"),
        (["-q"], "No such option: -q", ""),
        (["-xq"], "No such option: -q", ""),
        (["--ephemeral=yes"], "--ephemeral takes no value", ""),
        (["--ephemeral="], "--ephemeral takes no value", ""),
        (["tree", "--bind"], "--bind needs a value: SRC[:DST[:OPTIONS]]", ""),
        (["-u"], "-u needs a value", ""),
        (["--seccomp", "on"], "--seccomp does not know 'on'", "default, off"),
        (["--binfmt="], "--binfmt does not know ''", "auto, private, host"),
        (["--native", "fast", "tree"], "--native has its value after a =", "--native=fast"),
    ],
)
def test_mistakes(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


@given(st.lists(_WORDS))
def test_a_command_after_two_dashes_is_left_as_it_is(command: list[str]) -> None:
    assert parse(["tree", "--", *command]).command == tuple(command)


@given(_WORDS.filter(lambda word: not word.startswith("-")), st.lists(_WORDS))
def test_a_command_begins_with_the_first_word_after_the_tree(first: str, rest: list[str]) -> None:
    assert parse(["-x", "tree", "--user=joe", first, *rest]).command == (first, *rest)


@pytest.mark.parametrize("name", LONG)
def test_every_option_is_taken_in_its_long_form(name: str) -> None:
    option = LONG[name]
    value = option.choices[0] if option.choices else "value"
    for words in ([name], [name, "tree"]) if option.takes == "nothing" else ([f"{name}={value}"],):
        parsed = parse(words)
        said = option.key in parsed.flags or parsed.one(option.key) == value
        assert said, words


def test_no_name_stands_twice() -> None:
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names))
    assert len({option.key for option in OPTIONS}) == len(OPTIONS)
