"""Reading the kernel's text and judging entries, without a kernel; binfmt.d files."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.binary.arch import ARCHES, Arch, arch_named, host_arch
from xbuild.emulation.registry import (
    Conflicting,
    Entry,
    Missing,
    Usable,
    forget,
    host_flags,
    judge,
    parse_entry,
    persist,
    persistent_names,
    read_entries,
    register,
    unregister,
)
from xbuild.emulation.rules import derive_rule, magic_and_mask, parse_registration
from xbuild.errors import BinfmtError
from xbuild.record import HostPath, replace

QEMU = HostPath("/usr/bin/qemu")
FOREIGN = [arch for arch in ARCHES if arch.machine != host_arch().machine]
ARCH, OTHER = FOREIGN[:2]
foreign = st.sampled_from(FOREIGN)


def entry_for(arch: Arch, name: str = "qemu", *, enabled: bool = True) -> Entry:
    return Entry(name, enabled, QEMU, frozenset("PF"), 0, *magic_and_mask(arch))


def kernel_text(entry: Entry) -> str:
    """What entry_status() of fs/binfmt_misc.c prints."""
    lines = [
        "enabled" if entry.enabled else "disabled",
        f"interpreter {entry.interpreter}",
        "flags: " + "".join(flag for flag in "POCF" if flag in entry.flags),
    ]
    if entry.extension is not None:
        lines.append(f"extension .{entry.extension}")
    else:
        lines += [f"offset {entry.offset}", f"magic {entry.magic.hex()}"]
        if entry.mask != b"\xff" * len(entry.magic):
            lines.append(f"mask {entry.mask.hex()}")
    return "\n".join(lines) + "\n"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    size = draw(st.integers(1, 64))
    by_extension = draw(st.booleans())
    data = st.binary(min_size=size, max_size=size)
    return Entry(
        draw(texts),
        draw(st.booleans()),
        HostPath(draw(texts)),
        frozenset(draw(st.sets(st.sampled_from("POCF")))),
        0 if by_extension else draw(st.integers(0, 256 - size)),
        b"" if by_extension else draw(data),
        b"" if by_extension else draw(data),
        draw(texts) if by_extension else None,
    )


@given(entries())
def test_parsing_the_kernels_text_gives_back_the_entry(entry: Entry) -> None:
    assert parse_entry(entry.name, kernel_text(entry)) == entry


@given(st.text(max_size=60))
def test_other_text_is_an_error(text: str) -> None:
    with pytest.raises(BinfmtError):
        parse_entry("x", text)


@pytest.mark.parametrize("written", ["".join(p) for p in itertools.permutations("POF")])
def test_the_order_of_flags_means_nothing(written: str) -> None:
    text = kernel_text(entry_for(ARCH)).replace("flags: PF", f"flags: {written}")
    assert parse_entry("x", text).flags == {"P", "O", "F"}


def test_debians_entry_is_understood() -> None:
    entry = parse_entry(
        "qemu-aarch64",
        "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n"
        "magic 7f454c460201010000000000000000000200b700\n"
        "mask ffffffffffffff00fffffffffffffffffeffffff\n",
    )
    assert judge(arch_named("aarch64"), [entry]) == Usable(entry)


@given(foreign)
def test_without_entries_the_verdict_is_missing(arch: Arch) -> None:
    assert judge(arch, []) == Missing()


@given(foreign, st.lists(foreign, max_size=4))
def test_a_rule_of_ours_is_usable_for_its_architecture_alone(arch: Arch, more: list[Arch]) -> None:
    others = [entry_for(other, other.name) for other in more if other != arch]
    assert judge(arch, others) == Missing()
    assert judge(arch, [*others, entry_for(arch)]) == Usable(entry_for(arch))


def test_the_newest_enabled_entry_wins() -> None:
    newer, older = entry_for(ARCH, "newer"), entry_for(ARCH, "older")
    assert judge(ARCH, [newer, older]) == Usable(newer)
    assert judge(ARCH, [replace(newer, enabled=False), older]) == Usable(older)


def test_a_disabled_entry_is_said_to_be_so() -> None:
    entry = entry_for(ARCH, enabled=False)
    assert judge(ARCH, [entry]) == Conflicting(entry, "is disabled")


def test_a_disabled_registry_is_said_to_be_so() -> None:
    verdict = judge(ARCH, [entry_for(ARCH)], is_enabled=False)
    assert isinstance(verdict, Conflicting)
    assert "as a whole" in verdict.reason


def test_an_entry_by_extension_matches_nothing() -> None:
    assert judge(ARCH, [replace(entry_for(ARCH), magic=b"", mask=b"", extension="x")]) == Missing()


def test_a_rule_for_one_elf_type_only_is_half_a_rule() -> None:
    entry = entry_for(ARCH)
    assert isinstance(judge(ARCH, [replace(entry, mask=b"\xff" * len(entry.mask))]), Conflicting)


def test_a_rule_that_matches_every_program_is_in_the_way() -> None:
    greedy = replace(entry_for(ARCH), magic=b"\x7fELF", mask=b"\xff" * 4)
    verdict = judge(ARCH, [greedy])
    assert isinstance(verdict, Conflicting)
    assert "host" in verdict.reason


@pytest.mark.parametrize(
    ("interpreter", "kernel", "with_credentials", "flags"),
    [
        ("/usr/bin/qemu-arm", "6.18.0-1-amd64", False, "POF"),
        ("/usr/bin/qemu-arm", "5.12.0", False, "POF"),
        ("/usr/bin/qemu-arm", "5.10.0-30", False, "OF"),
        ("/usr/libexec/qemu-binfmt/arm-binfmt-P", "5.10.0-30", False, "POF"),
        ("/usr/bin/qemu-arm", "6.1", True, "POCF"),
    ],
)
def test_host_wide_flags(interpreter: str, kernel: str, with_credentials: bool, flags: str) -> None:
    chosen = host_flags(HostPath(interpreter), kernel=kernel, with_credentials=with_credentials)
    assert chosen == flags


def test_a_persistent_file_is_written_replaced_listed_and_removed(tmp_path: Path) -> None:
    directory = HostPath(str(tmp_path / "binfmt.d"))
    rule = derive_rule(ARCH, interpreter=QEMU, flags="POF")
    persist(replace(rule, flags="F"), directory)
    file = Path(persist(rule, directory))
    assert file.name == f"xbuild-{ARCH.name}.conf"
    assert file.stat().st_mode & 0o777 == 0o644
    lines = [line for line in file.read_bytes().splitlines() if not line.startswith(b"#")]
    assert [parse_registration(line) for line in lines] == [rule]
    assert persistent_names(directory) == (rule.name,)
    assert forget(rule.name, directory)
    assert not forget(rule.name, directory)
    assert list(file.parent.iterdir()) == []


def test_a_persistent_file_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(BinfmtError, match="Cannot write /proc/"):
        persist(derive_rule(ARCH, interpreter=QEMU), HostPath("/proc/nonexistent"))


@pytest.mark.parametrize("name", ["qemu-arm", "python3.11", "xbuild", "xbuild-", ""])
def test_entries_of_others_are_left_alone(name: str, tmp_path: Path) -> None:
    directory = HostPath(str(tmp_path))
    (tmp_path / f"{name}.conf").write_text("theirs")
    rule = derive_rule(ARCH, interpreter=QEMU, name=name)
    for attempt in (
        lambda: register(rule, directory),
        lambda: unregister(name, directory),
        lambda: forget(name, directory),
        lambda: persist(rule, directory),
    ):
        with pytest.raises(BinfmtError, match="left alone"):
            attempt()
    assert (tmp_path / f"{name}.conf").read_text() == "theirs"


def test_a_name_does_not_lead_out_of_the_directory(tmp_path: Path) -> None:
    with pytest.raises(BinfmtError):
        forget("xbuild-../../x", HostPath(str(tmp_path)))


@pytest.mark.parametrize("place", ["nonexistent", "empty"])
def test_a_registry_that_is_not_mounted_is_said_to_be_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BinfmtError, match="binfmt_misc") as caught:
        read_entries(HostPath(str(tmp_path / place)))
    assert caught.value.hint
