"""This host's own bash and make write what they would where C's types are others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.built_code import assert_made_of_source
from tests.capability import require
from xbuild.binary.arch import host_arch
from xbuild.native import c_types
from xbuild.native.c_types import types_for
from xbuild.native.elf_patch import ElfPatch
from xbuild.native.unsigned_char import remove_sign

SHIM = Path(c_types.__file__).parent / "shim"
KEYS = [*(b"k%d" % number for number in range(40)), *(bytes((n, 97)) for n in range(128, 256, 3))]
on_x86_64 = pytest.mark.skipif(host_arch().name != "x86_64", reason="code of x86-64")


def test_types_are_compared() -> None:
    assert types_for("aarch64", "riscv64") == c_types.Types(b"", False)
    assert types_for("x86_64", "i386") == c_types.Types(b"", False)
    assert types_for("aarch64", "arm").long_double is None
    assert types_for("x86_64", "ppc64le") == c_types.Types(None, True)
    assert types_for("x86_64", "mipsel").needs_unsigned_char is False
    assert types_for("x86_64", "unheard-of").long_double is None


@on_x86_64
def test_shim_is_made_of_its_source(tmp_path: Path) -> None:
    assert_made_of_source(SHIM, tmp_path / "shim")


@on_x86_64
@pytest.mark.parametrize(
    ("target", "tenth", "one"),
    [
        ("aarch64", "0.1000000000000000000000000000000000048148248610", "0x1p+0 0x1.04p+6"),
        ("arm", "0.1000000000000000055511151231257827021181583405", "0x1p+0 0x1.04p+6"),
        (None, "0.1000000000000000000013552527156068805425093160", "0x8p-3 0x8.2p+3"),
    ],
)
def test_numbers_are_the_targets(target: str | None, tenth: str, one: str, tmp_path: Path) -> None:
    """Both ways out of bash's printf; without the library, this host's own format is seen."""
    environment = {**os.environ, "LC_ALL": "C"}
    if target is not None:
        library = tmp_path / "long_double.so"
        library.write_bytes(types_for("x86_64", target).long_double or b"")
        environment["LD_PRELOAD"] = str(library)
    script = "printf '%.46f\\n' 0.1; printf -v x '%a %a' 1 \"'A\"; echo \"$x\"; printf %s%d a 1"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [tenth, one, "a1"]


@on_x86_64
def test_widths_beyond_an_int_are_refused_as_ever(tmp_path: Path) -> None:
    script = "printf '[%99999999999f]' 1; printf '[%99999999999d]' 1; printf '[%.99999999999e]' 1"
    said = []
    for preloaded in (b"", types_for("x86_64", "aarch64").long_double or b""):
        library = tmp_path / "long_double.so"
        library.write_bytes(preloaded)
        environment = {**os.environ, "LC_ALL": "C"}
        if preloaded:
            environment["LD_PRELOAD"] = str(library)
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True)
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1]


@on_x86_64
def test_bash_finds_its_keys_in_the_order_of_unsigned_characters(tmp_path: Path) -> None:
    bash = _changed("bash", tmp_path)
    script = "declare -A all; for key; do all[$key]=1; done; printf '%s\\n' \"${!all[@]}\""
    said = {}
    for program in ("bash", bash):
        done = subprocess.run(
            [program, "-c", script, "x", *KEYS],
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        said[program] = [_bucket(key) for key in done.stdout.splitlines()]
    ordered = sorted(said[bash], reverse=said[bash][0] > said[bash][-1])
    assert said[bash] == ordered
    assert said["bash"] != ordered
    done = subprocess.run(
        [bash, "-c", "\xe9() { :; }; z() { :; }; a() { :; }; declare -F".encode("latin-1")],
        env={"LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [b"a", b"z", b"\xe9"]


def _bucket(key: bytes) -> int:
    """Return where bash's hashlib.c puts a key (FNV-1), with characters from 0 to 255."""
    number = 2166136261
    for byte in key:
        number = (number * 16777619) & 0xFFFFFFFF ^ byte
    return number % 1024


@on_x86_64
def test_make_sorts_by_unsigned_characters(tmp_path: Path) -> None:
    make = _changed("make", tmp_path)
    makefile = tmp_path / "makefile"
    makefile.write_bytes(b"$(info $(sort z \xe9 a \xff))\nall: ;\n")
    done = subprocess.run([make, "-sf", makefile], capture_output=True, check=True)
    assert done.stdout.splitlines()[0] == b"a z \xe9 \xff"


def _changed(name: str, place: Path) -> str:
    """Return a copy of one of this host's programs without signs."""
    path = shutil.which(name) or ""
    require(name, bool(path), f"no {name} on this host")
    content = Path(path).read_bytes()
    patch = ElfPatch(content)
    remove_sign(patch, content)
    changed = place / name
    changed.write_bytes(patch.finish())
    changed.chmod(0o755)
    return str(changed)
