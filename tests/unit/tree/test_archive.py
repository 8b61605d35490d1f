from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crafted import (
    Fifo,
    HardLink,
    Layout,
    Link,
    busybox,
    elf,
    make_tar,
    make_tree,
    merged_usr,
)
from xbuild.errors import (
    DamagedArchive,
    NotARootfs,
    SymlinkLoop,
    TargetError,
    TargetNotFound,
    UnknownFormat,
    XbuildError,
)
from xbuild.record import GuestPath, HostPath, replace
from xbuild.tree.archive import ArchiveReader
from xbuild.tree.survey import Survey
from xbuild.tree.target import survey

ARM64 = "/lib/ld-linux-aarch64.so.1"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def unchanged(data: bytes) -> bytes:
    return data


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": unchanged,
    "tar.gz": gzip.compress,
    "tar.xz": lzma.compress,
    "tar.bz2": bz2.compress,
    "tar.zst": zstd,
}
packed = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
seekable_or_not = pytest.mark.parametrize("pack", [unchanged, gzip.compress], ids=["tar", "gz"])


def written(directory: Path, data: bytes) -> HostPath:
    path = directory / "archive"
    path.write_bytes(data)
    return HostPath(str(path))


def survey_of(directory: Path, layout: Layout) -> Survey:
    return survey(written(directory, make_tar(layout)))


def reader_of(directory: Path, layout: Layout) -> ArchiveReader:
    return ArchiveReader(written(directory, make_tar(layout)))


@packed
@pytest.mark.parametrize("layout", [merged_usr("arm64", ARM64), busybox("mips")], ids=["usr", "bb"])
def test_an_archive_is_surveyed_as_the_tree_it_unpacks_to(
    tmp_path: Path, pack: Callable[[bytes], bytes], layout: Layout
) -> None:
    from_tree = survey(make_tree(tmp_path / "tree", layout), full=True)
    path = written(tmp_path, pack(make_tar(layout)))
    from_archive = survey(path)
    same = {"target": path, "kind": "archive", "owner": -1, "owner_gid": -1}
    assert from_archive == replace(from_tree, **same)


@packed
def test_a_truncated_archive_is_named_wherever_it_ends(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    noise = os.urandom(40_000)  # so that every compression has something to cut
    whole = pack(make_tar({"bin/sh": elf("arm64"), "noise": noise, "bin/ls": elf("arm64")}))
    last = len(whole.rstrip(b"\0")) if pack is unchanged else len(whole) - 1
    for size in [*range(600, last, 2111), last]:
        with pytest.raises(DamagedArchive, match=r"archive is (cut off|damaged)"):
            survey(written(tmp_path, whole[:size]))


def test_an_archive_without_its_end_mark_is_cut_off(tmp_path: Path) -> None:
    whole = make_tar({"bin/sh": elf("arm64")}).rstrip(b"\0")
    padded = whole.ljust(-(-len(whole) // 512) * 512, b"\0")
    with pytest.raises(DamagedArchive, match="cut off"):
        survey(written(tmp_path, padded))


@packed
def test_a_garbled_archive_is_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = bytearray(pack(make_tar({"noise": os.urandom(40_000), "bin/sh": elf("arm64")})))
    at = 41_000 if pack is unchanged else len(data) // 2
    data[at : at + 1024] = b"\xa5" * len(data[at : at + 1024])
    with pytest.raises(DamagedArchive):
        survey(written(tmp_path, bytes(data)))


def test_xz_streams_one_after_another_with_padding(tmp_path: Path) -> None:
    data = make_tar({"bin/sh": elf("arm64")})
    streams = lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:])
    assert survey(written(tmp_path, streams)).arch is not None


@pytest.mark.parametrize("prefix", ["./", "", "/", "././/"])
def test_names_are_the_same_whatever_they_begin_with(tmp_path: Path, prefix: str) -> None:
    surveyed = survey(written(tmp_path, make_tar(busybox("arm64"), prefix=prefix)))
    assert surveyed.leading_program == "/bin/busybox"


def test_members_below_a_symlink_land_where_extraction_puts_them(tmp_path: Path) -> None:
    layout: Layout = {"bin": Link("usr/bin"), "bin/sh": elf("arm64")}
    reader = reader_of(tmp_path, layout)
    assert reader.resolve(GuestPath("/bin/sh")) == "/usr/bin/sh"
    assert reader.listdir(GuestPath("/usr/bin")) == ("sh",)


def test_a_hard_link_is_the_same_program(tmp_path: Path) -> None:
    layout: Layout = {"bin/busybox": elf("arm64"), "bin/sh": HardLink("bin/busybox")}
    surveyed = survey_of(tmp_path, layout)
    assert surveyed.programs == (("aarch64", 1),)
    assert surveyed.leading_program == "/bin/sh"


def test_a_later_member_replaces_an_earlier_one(tmp_path: Path) -> None:
    twice = io.BytesIO()
    with tarfile.open(fileobj=twice, mode="w") as archive:
        for content in (elf("arm64"), elf("s390x")):
            member = tarfile.TarInfo("bin/sh")
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    surveyed = survey(written(tmp_path, twice.getvalue()))
    assert surveyed.programs == (("s390x", 1),)


HOSTILE: dict[str, Layout] = {
    "a climbing name": {"../../bin/sh": elf("s390x")},
    "a climbing name within": {"usr/../../bin/sh": elf("s390x")},
    "a loop": {"bin/sh": Link("sh")},
    "a parent that loops": {"loop": Link("loop"), "loop/sh": elf("s390x")},
    "a hard link to nothing": {"bin/sh": HardLink("absent")},
    "a hard link outside": {"bin/sh": HardLink("../../bin/sh")},
    "a FIFO": {"bin/sh": Fifo},
    "an escape": {"bin/sh": Link("../../../../bin/bash")},
    "a long name": {"x/" * 3000 + "sh": elf("s390x")},
    "a long target": {"bin/sh": Link("x/" * 3000)},
    "names that are no text": {os.fsdecode(b"usr/bin/\xff\n"): elf("arm64")},
    "a name of nothing": {"": None, ".": None},
}


@seekable_or_not
@pytest.mark.parametrize("layout", HOSTILE.values(), ids=HOSTILE)
def test_the_rest_of_an_archive_tells_what_a_hostile_member_does_not(
    tmp_path: Path, layout: Layout, pack: Callable[[bytes], bytes]
) -> None:
    data = make_tar(layout | {"usr/bin/program": elf("arm64")})
    surveyed = survey(written(tmp_path, pack(data)))
    assert surveyed.arch is not None
    assert surveyed.arch.name == "aarch64"


def test_paths_resolve_inside_the_archive(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, {**busybox("arm64"), "loop": Link("loop"), "queue": Fifo})
    assert reader.resolve(GuestPath("/sbin/../../../bin/sh")) == "/bin/busybox"
    assert reader.lookup(GuestPath("/absent")) is None
    assert reader.present(GuestPath("/bin"), ("sh", "absent")) == ("sh",)
    assert reader.present(GuestPath("/loop"), ("sh",)) == ()
    with pytest.raises(TargetNotFound):
        reader.resolve(GuestPath("/absent"))
    with pytest.raises(SymlinkLoop):
        reader.lookup(GuestPath("/loop"))
    with pytest.raises(TargetError, match="it is a FIFO"):
        reader.read(GuestPath("/queue"), 10)


@pytest.mark.parametrize(
    ("message", "content"),
    {
        "a PE program .* compressed with gzip": gzip.compress(b"MZ" + bytes(2000)),
        "a text file, compressed with xz": lzma.compress(b"hello\n"),
        "an empty file, compressed with zstd": zstd(b""),
    }.items(),
)
def test_a_compressed_file_that_is_no_archive_says_what_is_in_it(
    tmp_path: Path, message: str, content: bytes
) -> None:
    with pytest.raises(UnknownFormat, match=message):
        survey(written(tmp_path, content))


def test_an_empty_archive_and_one_without_programs_are_no_trees(tmp_path: Path) -> None:
    with pytest.raises(NotARootfs, match="is empty"):
        survey(written(tmp_path, gzip.compress(make_tar({}))))
    with pytest.raises(NotARootfs, match="no program"):
        survey_of(tmp_path, {"etc/os-release": b"ID=x\n"})


def bomb(kind: bytes, size: int, content: bytes) -> bytes:
    """Return a tar header of a type and size that its content need not have, then the content."""
    member = tarfile.TarInfo("bomb")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + content


HEADERS = {
    "a GNU long name": tarfile.GNUTYPE_LONGNAME,
    "a GNU long link": tarfile.GNUTYPE_LONGLINK,
    "a pax header": tarfile.XHDTYPE,
    "a global pax header": tarfile.XGLTYPE,
}


@pytest.mark.parametrize("kind", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("size", [2 << 20, 1 << 40, -512])
def test_a_header_that_claims_too_much_is_damage(tmp_path: Path, kind: bytes, size: int) -> None:
    data = gzip.compress(bomb(kind, size, bytes(4 << 20)))
    with pytest.raises(DamagedArchive):
        survey(written(tmp_path, data))


def test_headers_nested_without_end_are_damage(tmp_path: Path) -> None:
    record = b"14 comment=x!\n"
    data = bomb(tarfile.XHDTYPE, len(record), record.ljust(512, b"\0")) * 900
    with pytest.raises(DamagedArchive):
        survey(written(tmp_path, data))


def test_a_negative_size_does_not_read_the_archive_again(tmp_path: Path) -> None:
    data = bomb(tarfile.REGTYPE, -1024, make_tar(busybox("arm64")))
    with pytest.raises(DamagedArchive):
        survey(written(tmp_path, data))


MEMORY = """
import resource, sys
from xbuild.errors import XbuildError
from xbuild.tree.target import survey
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    survey(sys.argv[1])
except XbuildError as error:
    print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def kilobytes_used(archive: HostPath) -> int:
    command = [sys.executable, "-c", MEMORY, archive]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output.split()[-1])


def test_a_bomb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    shell = elf("arm64")
    member = tarfile.TarInfo("bin/busybox")
    member.size, member.mode = 300 << 20, 0o755
    compressor = zstandard.ZstdCompressor().compressobj()
    data = [compressor.compress(member.tobuf() + shell)]
    data += [compressor.compress(bytes(1 << 20)) for _ in range(300)]
    data += [compressor.compress(bytes(512 - len(shell) % 512)), compressor.flush()]
    assert kilobytes_used(written(tmp_path, b"".join(data))) < 60_000


def test_beyond_the_room_the_count_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbuild.tree.archive._ROOM", 3000)
    layout: Layout = {f"usr/bin/program{n}": elf("arm64") for n in range(20)}
    surveyed = survey_of(tmp_path, layout)
    assert not surveyed.complete
    assert 0 < dict(surveyed.programs)["aarch64"] < 20


def test_a_sparse_member_is_read_where_it_begins(tmp_path: Path) -> None:
    for name in ("bin", "etc"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    with open(tmp_path / "tree/bin/sh", "wb") as file:
        file.write(elf("arm64").ljust(4096, b"\0"))
        file.truncate(50 << 20)
        os.fchmod(file.fileno(), 0o755)
    for kind in ("gnu", "posix"):
        archive = HostPath(f"{tmp_path}/{kind}.tar")
        command = ["tar", "-S", f"--format={kind}", "-C", f"{tmp_path}/tree", "-cf", archive, "."]
        subprocess.run(command, check=True)
        assert os.stat(archive).st_size < 1 << 20
        assert survey(archive).leading_program == "/bin/sh"


WHOLE = make_tar(merged_usr("arm64", ARM64))


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=30),
    st.booleans(),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_bytes_change_the_outcome_is_a_survey_or_a_named_error(
    tmp_path: Path, changes: list[tuple[int, int]], fix_checksums: bool
) -> None:
    data = bytearray(WHOLE)
    for offset, value in changes:
        data[offset] = value
    if fix_checksums:  # so that damage gets past the first check
        for block in range(0, len(data), 512):
            if data[block + 257 : block + 262] == b"ustar":
                data[block + 148 : block + 156] = b" " * 8
                total = sum(data[block : block + 512])
                data[block + 148 : block + 156] = b"%06o\0 " % total
    with suppress(XbuildError):
        survey(written(tmp_path, bytes(data)))
