"""Programs run on images: named when missing, and bounded in what they print and how long."""

from __future__ import annotations

import os

import pytest

from xbuild.errors import DamagedImage, ImageToolMissing
from xbuild.image import program
from xbuild.image.program import run_program


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageToolMissing) as error:
        run_program("debugfs", [], purpose="read the file system in card.img")
    assert error.value.message == (
        "Cannot read the file system in card.img: debugfs is not installed"
    )
    assert error.value.hint == "install the package e2fsprogs"


def test_programs_of_sbin_are_found_without_it_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert run_program("blkid", ["-V"], purpose="test").status == 0


def test_output_without_end_is_refused() -> None:
    with pytest.raises(DamagedImage, match="printed more than is sane"):
        run_program("cat", ["/dev/zero"], purpose="test", output_limit=1 << 20)


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "TIMEOUT_S", 0.2)
    with pytest.raises(DamagedImage, match="did not end"):
        run_program("sleep", ["60"], purpose="test")


def test_what_it_says_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    readable, writable = os.pipe()
    os.write(writable, b"image")
    os.close(writable)
    try:
        done = run_program(
            "sh",
            ["-c", f"cat /proc/self/fd/{readable}; cat; echo $LC_ALL >&2; exit 3"],
            purpose="test",
            descriptors=(readable,),
            commands=b" and commands",
        )
    finally:
        os.close(readable)
    assert (done.status, done.stdout, done.stderr) == (3, b"image and commands", "C\n")
