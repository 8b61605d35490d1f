from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crafted import Fifo, HardLink, Layout, Link, busybox, elf, make_tree, merged_usr
from xbuild.binary.arch import ARCHES, UNEMULATED, Arch
from xbuild.binary.elf import ET_CORE, ET_DYN, ET_REL
from xbuild.errors import (
    DamagedElf,
    NotARootfs,
    TargetError,
    TargetNotFound,
    UnknownArchitecture,
    UnknownFormat,
)
from xbuild.record import HostPath
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import Survey, libc_of, survey_directory
from xbuild.tree.target import survey

Require = Callable[[str, bool, str], None]

ARM64 = "/lib/ld-linux-aarch64.so.1"
ARMHF = "/lib/ld-linux-armhf.so.3"


def survey_of(root: Path, layout: Layout, *, full: bool = False) -> Survey:
    return survey(make_tree(root, layout), full=full)


def name_of(surveyed: Survey) -> str:
    assert surveyed.arch is not None
    return surveyed.arch.name


def test_a_merged_usr_tree(tmp_path: Path) -> None:
    surveyed = survey_of(tmp_path, merged_usr("arm64", ARM64) | {"usr/bin/bash": elf("arm64")})
    assert name_of(surveyed) == "aarch64"
    assert surveyed.is_merged_usr
    assert surveyed.programs == (("aarch64", 3),)
    assert (surveyed.libc, surveyed.loader, surveyed.is_loader_missing) == ("glibc", ARM64, False)
    assert surveyed.shell == "/bin/bash"
    assert surveyed.leading_program == "/usr/bin/dash"
    assert surveyed.distribution is not None
    assert surveyed.distribution.pretty_name == "Debian GNU/Linux 12 (bookworm)"
    assert (surveyed.owner, surveyed.owner_gid) == (os.getuid(), os.getgid())
    assert surveyed.architectures == ("aarch64",)


def test_a_busybox_tree_with_absolute_symlinks_and_no_os_release(tmp_path: Path) -> None:
    surveyed = survey_of(tmp_path, busybox("mipsel"))
    assert name_of(surveyed) == "mipsel"
    assert surveyed.shell == "/bin/sh"
    assert surveyed.leading_program == "/bin/busybox"
    assert surveyed.programs == (("mipsel", 1),)
    assert surveyed.distribution is None
    assert surveyed.loader is None
    assert surveyed.libc is None
    assert not surveyed.is_merged_usr


def test_a_tree_of_static_programs_without_a_shell(tmp_path: Path) -> None:
    surveyed = survey_of(tmp_path, {"usr/bin/server": elf("riscv64"), "etc": None})
    assert name_of(surveyed) == "riscv64"
    assert surveyed.shell is None
    assert surveyed.leading_program == "/usr/bin/server"


def test_a_tree_of_one_program_at_its_root(tmp_path: Path) -> None:
    assert name_of(survey_of(tmp_path, {"server": elf("s390x")})) == "s390x"


def test_the_loader_leads_where_there_is_no_shell(tmp_path: Path) -> None:
    layout: Layout = {
        "usr/bin/a": elf("amd64"),
        "usr/bin/b": elf("amd64"),
        "lib/ld-linux-aarch64.so.1": elf("arm64", type_=ET_DYN),
    }
    surveyed = survey_of(tmp_path, layout)
    assert name_of(surveyed) == "aarch64"
    assert surveyed.architectures == ("aarch64", "x86_64")
    assert surveyed.leading_program == ARM64


def test_the_shell_leads_over_the_most_programs(tmp_path: Path) -> None:
    programs: Layout = {f"usr/bin/program{n}": elf("amd64") for n in range(9)}
    surveyed = survey_of(tmp_path, busybox("arm64") | programs)
    assert name_of(surveyed) == "aarch64"
    assert surveyed.programs == (("x86_64", 9), ("aarch64", 1))
    assert surveyed.architectures == ("aarch64", "x86_64")


def test_a_foreign_loader_makes_a_tree_one_of_several_architectures(tmp_path: Path) -> None:
    armhf: Layout = {f"usr{ARMHF}": elf("armhf", type_=ET_DYN)}
    surveyed = survey_of(tmp_path, merged_usr("arm64", ARM64) | armhf)
    assert surveyed.architectures == ("aarch64", "arm")
    assert surveyed.loaders == (("aarch64", ARM64), ("arm", ARMHF))
    assert surveyed.loader == ARM64


@pytest.mark.parametrize("arch", ARCHES + UNEMULATED, ids=lambda a: a.name)
def test_every_architecture_is_found_by_its_loader(tmp_path: Path, arch: Arch) -> None:
    for number, loader in enumerate(arch.loaders):
        layout: Layout = {
            "bin/sh": elf(arch, interpreter=loader),
            loader.lstrip("/"): elf(arch, type_=ET_DYN),
        }
        surveyed = survey_of(tmp_path / str(number), layout)
        assert surveyed.arch is arch
        assert (arch.name, loader) in surveyed.loaders
        assert surveyed.loader == loader
        assert surveyed.libc is not None


def test_a_missing_loader_is_told(tmp_path: Path) -> None:
    surveyed = survey_of(tmp_path, {"bin/sh": elf("arm64", interpreter=ARM64)})
    assert surveyed.loader == ARM64
    assert surveyed.is_loader_missing


def test_a_sysroot_of_libraries_alone(tmp_path: Path) -> None:
    loader = "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
    surveyed = survey_of(tmp_path, {loader: elf("arm64", type_=ET_DYN)})
    assert name_of(surveyed) == "aarch64"
    assert surveyed.loader == "/" + loader
    assert surveyed.libc == "glibc"


@pytest.mark.parametrize(
    ("loader", "resolved", "libc"),
    [
        ("/lib/ld-linux-aarch64.so.1", None, "glibc"),
        ("/lib/ld.so.1", "/lib/ld-2.31.so", "glibc"),
        ("/lib/ld.so.1", "/lib/ld-uClibc-1.0.40.so", "uclibc"),
        ("/lib64/ld64.so.2", None, "glibc"),
        ("/lib/ld-musl-armhf.so.1", "/lib/libc.so", "musl"),
        ("/system/bin/linker64", None, "bionic"),
        ("/lib/klibc-abc.so", None, "klibc"),
        ("/opt/strange", None, None),
    ],
)
def test_the_loader_names_the_c_library(
    loader: str, resolved: str | None, libc: str | None
) -> None:
    assert libc_of(loader, resolved) == libc


def test_a_tree_whose_programs_are_all_links_into_a_store(tmp_path: Path) -> None:
    layout: Layout = {
        "nix/store/abc/bin/ls": elf("arm64"),
        "usr/bin/ls": Link("/nix/store/abc/bin/ls"),
        "usr/bin/dir": Link("/nix/store/abc/bin/ls"),
    }
    assert survey_of(tmp_path, layout).programs == (("aarch64", 1),)


def test_hard_links_count_once(tmp_path: Path) -> None:
    layout: Layout = {"usr/bin/a": elf("arm64"), "usr/bin/b": HardLink("usr/bin/a")}
    for full in (False, True):
        surveyed = survey_of(tmp_path / str(full), layout, full=full)
        assert surveyed.programs == (("aarch64", 1),)


def test_full_counts_programs_wherever_they_are(tmp_path: Path) -> None:
    layout: Layout = {
        "bin/sh": elf("arm64"),
        "opt/vendor/deep/down/tool": elf("armhf"),
        "usr/lib/libc.so.6": elf("arm64", type_=ET_DYN),
        "usr/lib/plugin.so": elf("arm64", type_=ET_DYN),
        "usr/share/script": b"#!/bin/sh\n" + bytes(100),
        "proc/stray": elf("amd64"),
        "loop": Link("."),
    }
    surveyed = survey_of(tmp_path, layout, full=True)
    assert surveyed.programs == (("aarch64", 1), ("arm", 1))
    assert surveyed.complete


def test_full_is_incomplete_where_a_directory_cannot_be_read(
    tmp_path: Path, require: Require
) -> None:
    require("root", os.geteuid() == 0, "giving up root shows what root may not read")
    root = make_tree(tmp_path / "tree", {"bin/sh": elf("arm64"), "secret/program": elf("armhf")})
    os.chmod(f"{root}/secret", 0o700)
    with DirectoryReader(root) as reader:
        os.seteuid(65534)
        try:
            surveyed = survey_directory(reader, full=True)
        finally:
            os.seteuid(0)
    assert not surveyed.complete
    assert surveyed.programs == (("aarch64", 1),)


def test_an_unreadable_tree_says_why_nothing_was_found(tmp_path: Path, require: Require) -> None:
    require("root", os.geteuid() == 0, "giving up root shows what root may not read")
    root = make_tree(tmp_path / "tree", {"bin/sh": elf("arm64")})
    os.chmod(f"{root}/bin", 0o700)
    with DirectoryReader(root) as reader:
        os.seteuid(65534)
        try:
            with pytest.raises(TargetError, match="Permission denied") as caught:
                survey_directory(reader)
        finally:
            os.seteuid(0)
    assert "root" in caught.value.hint


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARootfs, match="is empty") as caught:
        survey(HostPath(str(tmp_path)))
    assert caught.value.hint


def test_a_directory_that_is_no_tree_is_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"notes.txt": b"hello", "bin": None})
    with pytest.raises(NotARootfs, match="not a root filesystem") as caught:
        survey(root)
    assert "--full" in caught.value.hint
    with pytest.raises(NotARootfs) as caught:
        survey(root, full=True)
    assert "--full" not in caught.value.hint


def test_the_tree_one_level_down_is_suggested(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"README": b"", "rootfs/bin/sh": elf("arm64")})
    with pytest.raises(NotARootfs) as caught:
        survey(root)
    assert caught.value.hint == f"did you mean {root}/rootfs?"


def test_programs_of_an_unknown_machine_are_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"bin/sh": elf("arm64", machine=0xBEEF)})
    with pytest.raises(UnknownArchitecture, match="48879"):
        survey(root)


HOSTILE: dict[str, Layout] = {
    "a loop": {"bin/sh": Link("sh")},
    "a FIFO": {"bin/sh": Fifo},
    "a directory": {"bin/sh/below": b""},
    "a script": {"bin/sh": b"#!/bin/false\n" + bytes(64)},
    "a cut header": {"bin/sh": elf("armhf")[:40]},
    "a core dump": {"bin/sh": elf("armhf", type_=ET_CORE)},
    "a PE file": {"bin/sh": b"MZ" + bytes(100)},
    "an escape": {"bin/sh": Link("../../../../../../../../bin/sh")},
    "a dangling link": {"bin/sh": Link("/absent")},
    "an empty file": {"bin/sh": b""},
    "an unknown machine": {"bin/sh": elf("armhf", machine=0xBEEF)},
    "a bin that is a file": {"bin": b"not a directory"},
    "a bin that loops": {"bin": Link("bin")},
    "a FIFO os-release": {"etc/os-release": Fifo},
    "a looping loader": {"lib/ld-linux-aarch64.so.1": Link("ld-linux-aarch64.so.1")},
    "a FIFO as program": {"usr/bin/a": Fifo},
    "names that are no text": {os.fsdecode(b"usr/bin/\xff\n"): elf("arm64")},
}


@pytest.mark.parametrize("layout", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("full", [False, True], ids=["sampled", "full"])
def test_the_rest_of_a_tree_tells_what_a_hostile_part_does_not(
    tmp_path: Path, layout: Layout, full: bool
) -> None:
    surveyed = survey_of(tmp_path, layout | {"usr/bin/program": elf("arm64")}, full=full)
    assert name_of(surveyed) == "aarch64"


def test_a_device_node_in_the_place_of_the_shell_is_left_alone(
    tmp_path: Path, require: Require
) -> None:
    require("root", os.geteuid() == 0, "device nodes can be made by root alone")
    root = make_tree(tmp_path, {"bin": None, "usr/bin/program": elf("arm64")})
    os.mknod(f"{root}/bin/sh", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod(f"{root}/usr/bin/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    surveyed = survey(root)
    assert name_of(surveyed) == "aarch64"
    assert surveyed.shell is None


def test_a_single_program(tmp_path: Path) -> None:
    program = make_tree(tmp_path, {"program": elf("armhf", interpreter=ARMHF)}) + "/program"
    surveyed = survey(HostPath(program))
    assert (surveyed.kind, name_of(surveyed), surveyed.libc) == ("program", "arm", "glibc")
    assert surveyed.loader == ARMHF
    assert surveyed.leading_program == program


FILES = {
    "is a PE program": b"MZ" + bytes(100),
    "is a script": b"#!/bin/sh\n",
    "is a text file": b"hello\n",
    "is an empty file": b"",
    "is a core dump of arm,": elf("armhf", type_=ET_CORE),
    "is an object file": elf("armhf", type_=ET_REL),
    "is a squashfs image": b"hsqs" + bytes(100),
    r"is a disk image \(MBR\)": bytes(510) + b"\x55\xaa" + bytes(512),
    r"is a disk image \(GPT\)": bytes(510) + b"\x55\xaaEFI PART" + bytes(512),
    "is an ext2, ext3 or ext4 image": bytes(1080) + b"\x53\xef" + bytes(100),
    "is a cpio archive": b"070701" + bytes(100),
    "is a Debian package": b"!<arch>\ndebian-binary   " + bytes(100),
    "is data of an unknown format": bytes(range(256)),
    "is a file of zeros": bytes(2048),
}


@pytest.mark.parametrize(("message", "content"), FILES.items(), ids=FILES)
def test_a_file_that_is_no_target_says_what_it_looks_like(
    tmp_path: Path, message: str, content: bytes
) -> None:
    with pytest.raises(UnknownFormat, match=message):
        survey(HostPath(make_tree(tmp_path, {"file": content}) + "/file"))


def test_a_fifo_as_target_is_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="is a FIFO"):
        survey(HostPath(make_tree(tmp_path, {"queue": Fifo}) + "/queue"))


def test_a_device_as_target_is_refused() -> None:
    with pytest.raises(UnknownFormat, match="is a character device"):
        survey(HostPath("/dev/zero"))


def test_no_such_target(tmp_path: Path) -> None:
    for name in ("absent", "nul\0"):
        with pytest.raises(TargetNotFound):
            survey(HostPath(f"{tmp_path}/{name}"))


def test_a_symlink_loop_as_target_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="loop"):
        survey(HostPath(make_tree(tmp_path, {"loop": Link("loop")}) + "/loop"))


@pytest.mark.parametrize("size", [4, 20, 63, 64, 100, 119])
def test_a_truncated_program_is_named(tmp_path: Path, size: int) -> None:
    whole = elf("arm64", interpreter=ARM64)
    (tmp_path / "program").write_bytes(whole[:size])
    with pytest.raises(DamagedElf, match=f"{tmp_path}/program"):
        survey(HostPath(f"{tmp_path}/program"))


def test_a_program_without_its_last_byte_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(elf("arm64") + b"code")
    assert survey(HostPath(f"{tmp_path}/program")).arch is not None
    (tmp_path / "program").write_bytes(elf("arm64")[:-1])
    with pytest.raises(DamagedElf):
        survey(HostPath(f"{tmp_path}/program"))


def test_a_program_of_an_unknown_machine_is_named(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(elf("arm64", machine=0xBEEF))
    with pytest.raises(UnknownArchitecture, match="machine 48879"):
        survey(HostPath(f"{tmp_path}/program"))
