"""``xbuild inspect`` as people run it, on crafted trees and on bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.crafted import Fifo, Layout, Link, busybox, elf, make_tar, make_tree, merged_usr
from tests.installation import CHECKOUT
from tests.users import User
from xbuild.binary.arch import ARCHES, arch_named, host_arch
from xbuild.binary.elf import ET_CORE
from xbuild.record import HostPath

ARM64 = "/lib/ld-linux-aarch64.so.1"
ARMHF = "/lib/ld-linux-armhf.so.3"

Result = subprocess.CompletedProcess[str]
Inspect = Callable[..., Result]


@pytest.fixture
def inspect(xbuild_for: Callable[[User | None], list[str]]) -> Inspect:
    """``inspect(TARGET, OPTIONS…, **settings)``: run it and return what it wrote."""

    def run(*arguments: str, **settings: Any) -> Result:  # Any: subprocess.run's own
        command = [*xbuild_for(None), "inspect", *arguments]
        options = {"capture_output": True, "text": True, "timeout": 60, **settings}
        return subprocess.run(command, check=False, **options)

    return run


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], HostPath]:
    """``make(layout)``: a new tree."""

    def build(layout: Layout) -> HostPath:
        return make_tree(tmp_path_factory.mktemp("tree"), layout)

    return build


Make = Callable[[Layout], HostPath]


def facts(result: Result) -> dict[str, str]:
    """Return the rows under the first line, the last of each label."""
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()[2:]
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)


def document(result: Result) -> dict[str, Any]:  # Any: JSON
    assert (result.returncode, result.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_the_first_line_says_the_essential(inspect: Inspect, make: Make) -> None:
    tree = make(merged_usr("arm64", ARM64))
    first = inspect(tree).stdout.splitlines()[0]
    assert first == (
        f"{tree}: arm64 (AArch64, 64-bit little-endian), Debian GNU/Linux 12 (bookworm), glibc"
    )


def test_each_fact_has_its_row(inspect: Inspect, make: Make) -> None:
    rows = facts(inspect(make(merged_usr("arm64", ARM64))))
    host = rows.pop("this host")
    rows.pop("hint", None)
    assert rows == {
        "kind": "directory, merged /usr",
        "machine": "EM_AARCH64 (183)",
        "class": "64-bit",
        "byte order": "little-endian",
        "C library": "glibc",
        "loader": ARM64,
        "shell": "/bin/sh",
        "distribution": "Debian GNU/Linux 12 (bookworm)",
        "Debian name": "arm64",
        "Gentoo CHOST": "aarch64-unknown-linux-gnu",
        "qemu": "qemu-aarch64",
        "programs": "arm64 2 in a sample; --full counts all",
    }
    assert "run" in host


def test_several_architectures_are_named_as_such(inspect: Inspect, make: Make) -> None:
    others: Layout = {f"usr{ARMHF}": elf("armhf", type_=3), "usr/bin/old": elf("s390x")}
    result = inspect(make(merged_usr("arm64", ARM64) | others))
    assert "little-endian), also s390x and arm, Debian" in result.stdout.splitlines()[0]
    assert facts(result)["programs"].startswith("arm64 2, s390x 1, arm 0 in a sample")


def test_a_busybox_tree_with_absolute_symlinks_and_no_os_release(
    inspect: Inspect, make: Make
) -> None:
    tree = make(busybox("mipsel"))
    result = inspect(tree, "--full")
    rows = facts(result)
    assert result.stdout.splitlines()[0] == (f"{tree}: mipsel (MIPS, 32-bit little-endian), static")
    assert (rows["C library"], rows["loader"], rows["distribution"]) == (
        "none: static",
        "none",
        "unknown",
    )
    assert rows["programs"] == "mipsel 1 in all"


def test_a_tree_without_a_shell(inspect: Inspect, make: Make) -> None:
    rows = facts(inspect(make({"usr/bin/server": elf("riscv64", flags=5)})))
    assert rows["shell"] == "none"
    assert rows["Debian name"] == "riscv64"


def test_a_missing_loader_is_pointed_out(inspect: Inspect, make: Make) -> None:
    rows = facts(inspect(make({"bin/sh": elf("arm64", interpreter=ARM64)})))
    assert rows["loader"] == f"{ARM64} (missing: its programs cannot start)"


def test_musl_changes_the_gentoo_name(inspect: Inspect, make: Make) -> None:
    loader = "/lib/ld-musl-armhf.so.1"
    program = elf("armhf", interpreter=loader, flags=0x05000400)
    rows = facts(inspect(make({"bin/sh": program, loader[1:]: elf("armhf", type_=3)})))
    assert rows["C library"] == "musl"
    assert rows["Gentoo CHOST"] == "armv7a-unknown-linux-musleabihf"


def test_the_hosts_own_architecture_runs_natively(inspect: Inspect, make: Make) -> None:
    own = host_arch()
    rows = facts(inspect(make({"bin/sh": elf(own)})))
    assert rows["this host"] == "runs it natively"


def test_an_architecture_that_qemu_lacks_does_not_run(inspect: Inspect, make: Make) -> None:
    result = inspect(make({"bin/sh": elf("ia64")}))
    rows = facts(result)
    assert rows["this host"] == "does not run it: qemu-user emulates no ia64"
    assert rows["qemu"] == "none"
    assert rows["hint"]


def test_an_archive_is_inspected_without_unpacking(
    inspect: Inspect, make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("archive")
    (place / "tree.tar").write_bytes(make_tar(merged_usr("arm64", ARM64)))
    for command in (["gzip", "-k"], ["xz", "-k"], ["zstd", "-q"]):
        subprocess.run([*command, "tree.tar"], cwd=place, check=True)
    names = set(os.listdir(place))
    assert names == {"tree.tar", "tree.tar.gz", "tree.tar.xz", "tree.tar.zst"}
    for name in sorted(names):
        rows = facts(inspect(f"{place}/{name}"))
        assert (rows["kind"], rows["Debian name"]) == ("archive, merged /usr", "arm64")
    assert set(os.listdir(place)) == names


def test_a_single_program(inspect: Inspect, make: Make) -> None:
    program = make({"ls": elf("s390x", interpreter="/lib/ld64.so.1")}) + "/ls"
    result = inspect(program)
    assert result.stdout.startswith(f"{program}: s390x (IBM Z, 64-bit big-endian), glibc\n")
    assert "programs" not in facts(result)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda a: a.name)
def test_every_architecture_names_its_emulator(inspect: Inspect, make: Make, arch: str) -> None:
    row = arch_named(getattr(arch, "name", arch))
    found = document(inspect(make({"bin/sh": elf(row)}), "--json"))
    assert found["architecture"]["name"] == row.name
    assert found["qemu"]["binary"] == f"qemu-{row.name}"
    assert found["architectures"][0]["host"]["way"] in ("native", "native32", "emulated", "none")


# Bad input.


BAD_FILES = {
    "is a PE program": b"MZ" + bytes(100),
    "is a core dump": elf("arm64", type_=ET_CORE),
    "is a script": b"#!/bin/sh\n",
    "is no whole program": elf("arm64")[:30],
    "is for ELF machine 48879": elf("arm64", machine=0xBEEF),
    "is an empty file": b"",
}


@pytest.mark.parametrize(("message", "content"), BAD_FILES.items(), ids=BAD_FILES)
def test_a_bad_file_is_named(inspect: Inspect, make: Make, message: str, content: bytes) -> None:
    result = inspect(make({"file": content}) + "/file")
    assert (result.returncode, result.stdout) == (125, "")
    assert message in result.stderr
    assert result.stderr.startswith("xbuild: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("message", "layout"),
    [
        ("is empty", {}),
        ("is not a root filesystem", {"notes": b"hello"}),
        ("for ELF machine 48879", {"bin/sh": elf("arm64", machine=0xBEEF)}),
        ("it is a FIFO", {"bin/sh": Fifo}),
        ("loop of symbolic links", {"bin/sh": Link("sh")}),
    ],
)
def test_a_bad_tree_is_named(inspect: Inspect, make: Make, message: str, layout: Layout) -> None:
    result = inspect(make(layout))
    assert (result.returncode, result.stdout) == (125, "")
    assert message in result.stderr


def test_no_such_target(inspect: Inspect) -> None:
    result = inspect("/nonexistent/tree")
    assert result.returncode == 125
    assert result.stderr.startswith("xbuild: No such file: /nonexistent/tree\nhint: ")


def test_a_fifo_and_a_device_are_no_targets(inspect: Inspect, make: Make) -> None:
    assert "is a FIFO" in inspect(make({"queue": Fifo}) + "/queue").stderr
    assert "is a character device" in inspect("/dev/zero").stderr


def test_an_ordinary_user_is_told_what_may_not_be_read(
    xbuild_for: Callable[[User | None], list[str]],
    ordinary_user: User,
    reachable_directory: HostPath,
) -> None:
    tree = make_tree(f"{reachable_directory}/unreadable", {"bin/sh": elf("arm64")})
    os.chmod(f"{tree}/bin/sh", 0o711)
    os.chmod(f"{tree}/bin", 0o711)
    if ordinary_user.is_self:
        os.chmod(f"{tree}/bin", 0)
    result = ordinary_user.run([*xbuild_for(ordinary_user), "inspect", tree], check=False)
    assert result.returncode == 125
    assert "Permission denied" in result.stderr
    assert "hint: run as the owner of the tree, or as root" in result.stderr


def test_usage_errors(inspect: Inspect) -> None:
    assert inspect().returncode == 2
    result = inspect("--color", "/")
    assert result.returncode == 2
    assert re.fullmatch(
        r"xbuild: No such option:? '?--color'?\nhint: xbuild inspect --help\n", result.stderr
    )


def test_names_with_control_characters_do_not_reach_the_terminal(
    inspect: Inspect, make: Make
) -> None:
    release = b'ID=x\nPRETTY_NAME="\x1b[31mred\x07"\n'
    tree = make({"bin/sh": elf("arm64"), "etc/os-release": release})
    renamed = os.fsdecode(os.fsencode(tree) + b"\n\xff")
    os.rename(tree, renamed)
    result = inspect(renamed)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout
    assert r"\n\xff: arm64" in result.stdout.splitlines()[0]
    assert document(inspect(renamed, "--json"))["target"] == renamed


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_a_locale_without_utf8(inspect: Inspect, make: Make, option: tuple[str, ...]) -> None:
    release = 'ID=x\nPRETTY_NAME="Bäume"\n'.encode()
    tree = make({"bin/sh": elf("arm64"), "etc/os-release": release})
    renamed = os.fsdecode(os.fsencode(tree) + "-é".encode() + b"\xff")
    os.rename(tree, renamed)
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for extra in ({}, {"PYTHONIOENCODING": "ascii"}):
        environment = {"PATH": os.environ["PATH"], **plain, **extra}
        result = inspect(renamed, *option, env=environment)
        assert (result.returncode, result.stderr) == (0, "")
        assert "arm64" in result.stdout
    missing = inspect(renamed + "/é", env=environment)
    assert (missing.returncode, missing.stdout) == (125, "")


def test_closed_standard_streams(inspect: Inspect, make: Make) -> None:
    tree = make({"bin/sh": elf("arm64")})
    assert "arm64" in inspect(tree, preexec_fn=lambda: os.close(0)).stdout
    result = inspect(tree, preexec_fn=lambda: os.close(1))
    assert result.returncode == 125
    assert result.stderr == "xbuild: cannot write to standard output: Bad file descriptor\n"
    assert inspect(tree, preexec_fn=lambda: os.close(2)).returncode == 0


def test_a_full_disk_under_standard_output(inspect: Inspect, make: Make) -> None:
    tree = make({"bin/sh": elf("arm64")})
    with open("/dev/full", "w") as full:
        result = inspect(tree, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 125
    assert result.stderr == "xbuild: cannot write to standard output: No space left on device\n"


def test_a_reader_that_went_away(inspect: Inspect, make: Make) -> None:
    tree = make({"bin/sh": elf("arm64")})
    readable, writable = os.pipe()
    os.close(readable)
    result = inspect(tree, capture_output=False, stdout=writable, stderr=subprocess.PIPE)
    os.close(writable)
    assert (result.returncode, result.stderr) == (141, "")


# The schema.


def keys_of(value: object, prefix: str = "") -> Iterator[str]:
    """Yield the path of every key in a document, as docs/json.md writes them."""
    match value:
        case dict():
            for key, inner in value.items():
                yield f"{prefix}{key}"
                yield from keys_of(inner, f"{prefix}{key}.")
        case list():
            for inner in value:
                if isinstance(inner, dict):
                    yield from keys_of(inner, f"{prefix[:-1]}[].")


def documentation() -> str:
    with open(f"{CHECKOUT}/docs/json.md", encoding="utf-8") as file:
        text = file.read()
    return text.split("## xbuild.inspect/1")[1].split("\n## ")[0]


def test_the_documented_keys_are_those_emitted(inspect: Inspect, make: Make) -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", documentation(), re.MULTILINE)
    emitted = document(inspect(make(merged_usr("arm64", ARM64)), "--json"))
    assert sorted(documented) == sorted(set(keys_of(emitted)))
    assert emitted["schema"] == "xbuild.inspect/1"


def test_the_documented_example_has_the_documented_keys() -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", documentation(), re.MULTILINE)
    example = re.findall(r"```json\n(.*?)```", documentation(), re.DOTALL)[0]
    assert sorted(documented) == sorted(set(keys_of(json.loads(example))))
