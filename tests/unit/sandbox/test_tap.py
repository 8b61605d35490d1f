"""What a tap keeps: the end of each stream, and lines of all that are not mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from xbuild.sandbox.tap import Tap

if TYPE_CHECKING:
    from xbuild.sandbox.tap import Stream

STREAMS = st.sampled_from(("stdout", "stderr"))
PIECES = st.lists(st.tuples(STREAMS, st.binary(max_size=12)), max_size=40)


def heard(*pieces: tuple[Stream, bytes], kept_bytes: int = 1000) -> Tap:
    tap = Tap(kept_bytes=kept_bytes)
    for stream, content in pieces:
        tap.heard(stream, content)
    return tap


def test_a_line_is_not_torn_by_another_stream() -> None:
    tap = heard(("stderr", b"date: "), ("stdout", b"Wed\nThu"), ("stderr", b"no\n"))
    assert tap.tail() == b"Wed\ndate: no\nThu"
    assert tap.tail("stderr") == b"date: no\n"
    assert tap.tail("terminal") == b""


@given(PIECES)
def test_nothing_is_lost(pieces: list[tuple[Stream, bytes]]) -> None:
    tap = heard(*pieces)
    assert sorted(tap.tail()) == sorted(b"".join(content for _, content in pieces))
    assert tap.count() == sum(len(content) for _, content in pieces)
    stream: Stream
    for stream in ("stdout", "stderr"):
        whole = b"".join(content for each, content in pieces if each == stream)
        assert tap.tail(stream) == whole
        assert tap.count(stream) == len(whole)


@given(PIECES, st.integers(1, 30))
def test_what_is_too_old_is_forgotten(pieces: list[tuple[Stream, bytes]], kept: int) -> None:
    tap = heard(*pieces, kept_bytes=kept)
    assert len(tap.tail()) <= kept
    stream: Stream
    for stream in ("stdout", "stderr"):
        whole = b"".join(content for each, content in pieces if each == stream)
        assert tap.tail(stream) == whole[-kept:]


def test_a_huge_line_does_not_wait_for_its_end() -> None:
    tap = heard(("stdout", b"x" * 5000), ("stderr", b"no\n"), kept_bytes=6000)
    assert tap.tail() == b"x" * 5000 + b"no\n"
