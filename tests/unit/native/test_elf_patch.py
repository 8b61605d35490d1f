"""Relocated programs of this host still run, and run with what they were told to use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.errors import DamagedElf
from xbuild.native.elf_patch import ElfPatch

SHELL = os.path.realpath("/bin/sh")


@pytest.fixture
def program() -> ElfPatch:
    with open(SHELL, "rb") as file:
        return ElfPatch(file.read())


def _run(patch: ElfPatch, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = place / "program"
    path.write_bytes(patch.finish())
    path.chmod(0o755)
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def test_a_longer_path_of_the_loader_serves(program: ElfPatch, tmp_path: Path) -> None:
    assert program.interpreter is not None
    loader = tmp_path / "a-directory-with-a-long-name" / "ld.so"
    loader.parent.mkdir()
    shutil.copy(program.interpreter, loader)
    program.set_interpreter(str(loader))
    done = _run(program, tmp_path, "-c", "read line </proc/self/maps; cat /proc/$$/maps")
    assert str(loader) in done.stdout
    assert done.returncode == 0


def test_the_loader_must_be_there(program: ElfPatch, tmp_path: Path) -> None:
    program.set_interpreter(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        _run(program, tmp_path, "-c", "true")


def test_libraries_are_taken_from_the_path(program: ElfPatch, tmp_path: Path) -> None:
    said = subprocess.run(["ldd", SHELL], capture_output=True, text=True, check=True).stdout
    (libc,) = re.findall(r"libc\.so\.6 => (\S+)", said)
    shutil.copy(libc, tmp_path / "libc.so.6")
    program.set_library_path(str(tmp_path))
    done = _run(program, tmp_path, "-c", "cat /proc/$$/maps")
    assert f"{tmp_path}/libc.so.6" in done.stdout


def test_a_library_is_loaded_that_the_program_did_not_need(
    program: ElfPatch, tmp_path: Path
) -> None:
    said = subprocess.run(["ldd", SHELL], capture_output=True, text=True, check=True).stdout
    (libc,) = re.findall(r"libc\.so\.6 => (\S+)", said)
    library = tmp_path / "libextra.so"
    with open(os.path.join(os.path.dirname(libc), "libm.so.6"), "rb") as file:
        extra = ElfPatch(file.read())
    extra.set_soname("/known/by/this/name.so")
    library.write_bytes(extra.finish())
    program.add_needed(str(library))
    assert str(library) in _run(program, tmp_path, "-c", "cat /proc/$$/maps").stdout


def test_what_is_changed_twice_is_as_changed_last(program: ElfPatch, tmp_path: Path) -> None:
    assert program.interpreter is not None
    loader = program.interpreter
    program.set_interpreter("/none")
    program.set_interpreter(loader)
    assert _run(program, tmp_path, "-c", "echo here").stdout == "here\n"


def test_a_shell_calls_the_machine_by_the_longer_name(tmp_path: Path) -> None:
    require("x86_64", os.uname().machine == "x86_64", "references in code are x86-64's")
    with open(shutil.which("bash") or SHELL, "rb") as file:
        patch = ElfPatch(file.read())
    assert patch.repoint_string(b"x86_64-pc-linux-gnu", b"powerpc64le-someone-linux-gnu") >= 1
    done = _run(patch, tmp_path, "-c", "echo $MACHTYPE ${BASH_VERSINFO[5]}; echo $HOSTTYPE")
    assert done.stdout == "powerpc64le-someone-linux-gnu powerpc64le-someone-linux-gnu\nx86_64\n"


def test_a_program_at_fixed_addresses_has_the_longer_text(tmp_path: Path) -> None:
    """gawk is one: a pointer in its data is all that refers to the text."""
    require("gcc", shutil.which("gcc") is not None, "no gcc on this host")
    source = tmp_path / "fixed.c"
    source.write_text(
        'const char *volatile place = "/usr/lib/here";\n'
        "int puts(const char *);\nint main(void) { puts(place); return 0; }\n"
    )
    subprocess.run(["gcc", "-no-pie", "-o", tmp_path / "fixed", source], check=True)
    patch = ElfPatch((tmp_path / "fixed").read_bytes())
    assert patch.repoint_string(b"/usr/lib/here", b"/usr/lib/somewhere-else") == 1
    assert _run(patch, tmp_path).stdout == "/usr/lib/somewhere-else\n"


def test_a_string_is_replaced_within_its_room() -> None:
    with open(SHELL, "rb") as file:
        content = file.read()
    patch = ElfPatch(content)
    assert patch.replace_strings(((b"/usr/local/sbin", b"/opt/s"),)) == content.count(
        b"/usr/local/sbin"
    )
    changed = patch.finish()
    assert len(changed) == len(content)
    assert b"/usr/local/sbin" not in changed
    with pytest.raises(ValueError, match="longer"):
        patch.replace_strings(((b"a", b"ab"),))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01\x01" + bytes(60)])
def test_what_is_no_program_of_a_host_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedElf):
        ElfPatch(content)


def test_a_program_that_is_cut_off_is_refused() -> None:
    with open(SHELL, "rb") as file:
        content = file.read(100)
    with pytest.raises(DamagedElf):
        ElfPatch(content)
