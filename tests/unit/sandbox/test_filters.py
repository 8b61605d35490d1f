"""The seccomp filters: what their bytes answer, run by an interpreter of classic BPF."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

import pytest

from script.filters import ARCHITECTURES, compile_filters, load
from xbuild.plan.privileges import (
    REFUSED_ENOSYS,
    REFUSED_EPERM,
    REFUSED_MOUNT,
    REFUSED_SOCKET_FAMILY,
    SKIPPED_IOCTL,
    SKIPPED_SYNC,
)
from xbuild.sandbox.filters import PROGRAMS

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
AUDIT_ARCH_S390X = 0x80000016
NUMBERS = range(600)


def answer(program: bytes, arch: int, number: int, argument: int = 0, second: int = 0) -> int:
    """Run a filter on one call, as the kernel does (Documentation/networking/filter.rst)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, argument, second, 0, 0, 0, 0)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        operation, if_true, if_false, k = code[place]
        place += 1
        match operation:  # linux/bpf_common.h
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x05:
                place += k
            case 0x15 | 0x25 | 0x35:
                holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}
                place += if_true if holds[operation] else if_false
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = load()
    found.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    return found


def architectures() -> Iterator[tuple[str, str]]:
    for machine, names in ARCHITECTURES.items():
        for name in names:
            yield machine, name


def numbers(library: ctypes.CDLL, arch: int, names: tuple[str, ...]) -> set[int]:
    """Return what an architecture's kernel calls them; those that it never had are left out."""
    found = (library.seccomp_syscall_resolve_name_arch(arch, name.encode()) for name in names)
    return {number for number in found if number >= 0}


def token(library: ctypes.CDLL, name: str) -> tuple[int, int]:
    """Return the AUDIT_ARCH_* that the kernel gives, and what x32 adds to its numbers."""
    if name == "x32":
        return library.seccomp_arch_resolve_name(b"x86_64"), 0x40000000
    return library.seccomp_arch_resolve_name(name.encode()), 0


@pytest.mark.parametrize(("machine", "name"), list(architectures()))
def test_filter_answers_as_listed(library: ctypes.CDLL, machine: str, name: str) -> None:
    arch, offset = token(library, name)
    own = library.seccomp_arch_resolve_name(name.encode())
    wanted = {
        "refuse": dict.fromkeys(numbers(library, own, REFUSED_EPERM), ERRNO | errno.EPERM)
        | dict.fromkeys(numbers(library, own, REFUSED_ENOSYS), ERRNO | errno.ENOSYS),
        "no-sync": dict.fromkeys(numbers(library, own, SKIPPED_SYNC), ERRNO),
        "no-mount": dict.fromkeys(numbers(library, own, REFUSED_MOUNT), ERRNO | errno.EPERM),
    }
    assert len(wanted["refuse"]) > 20
    assert len(wanted["no-sync"]) > 3
    assert len(wanted["no-mount"]) > 10
    for kind, answers in wanted.items():
        program = bytes.fromhex(PROGRAMS[machine][kind])
        for number in (n + offset for n in NUMBERS):
            assert answer(program, arch, number) == answers.get(number, ALLOW), (kind, number)


def test_32_bit_x86_keeps_its_sockets(library: ctypes.CDLL) -> None:
    """socketcall(2) hides which family is meant."""
    arch, _ = token(library, "x86")
    program = bytes.fromhex(PROGRAMS["x86_64"]["refuse"])
    assert {answer(program, arch, number, 1) for number in (102, 359)} == {ALLOW}


@pytest.mark.parametrize("name", ["x86_64", "x32", "aarch64", "arm"])
def test_sockets_to_the_hypervisor_are_refused(library: ctypes.CDLL, name: str) -> None:
    arch, _ = token(library, name)
    machine = next(m for m, names in ARCHITECTURES.items() if name in names)
    own = library.seccomp_arch_resolve_name(name.encode())
    (number,) = numbers(library, own, ("socket",))
    program = bytes.fromhex(PROGRAMS[machine]["refuse"])
    refused = ERRNO | errno.EAFNOSUPPORT
    assert answer(program, arch, number, REFUSED_SOCKET_FAMILY) == refused
    assert {answer(program, arch, number, family) for family in (1, 2, 10, 16)} == {ALLOW}


@pytest.mark.parametrize(("machine", "name"), list(architectures()))
def test_one_ioctl_is_skipped(library: ctypes.CDLL, machine: str, name: str) -> None:
    arch, _ = token(library, name)
    own = library.seccomp_arch_resolve_name(name.encode())
    (number,) = numbers(library, own, ("ioctl",))
    program = bytes.fromhex(PROGRAMS[machine]["no-flush"])
    assert answer(program, arch, number, 3, SKIPPED_IOCTL) == ERRNO
    assert {answer(program, arch, number, 3, request) for request in (0x1260, 0x1277)} == {ALLOW}
    assert answer(program, arch, number + 1, 3, SKIPPED_IOCTL) == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_other_architectures_get_nothing(machine: str) -> None:
    for program in PROGRAMS[machine].values():
        assert answer(bytes.fromhex(program), AUDIT_ARCH_S390X, 1) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_bytes_are_what_libseccomp_makes(library: ctypes.CDLL, machine: str) -> None:
    """Whatever order its version puts them in, they answer alike."""
    made = compile_filters(machine)
    assert set(made) == set(PROGRAMS[machine])
    for name in ARCHITECTURES[machine]:
        arch, offset = token(library, name)
        for kind, program in made.items():
            kept = bytes.fromhex(PROGRAMS[machine][kind])
            for number in (n + offset for n in NUMBERS):
                for argument in (0, REFUSED_SOCKET_FAMILY):
                    assert answer(kept, arch, number, argument) == answer(
                        program, arch, number, argument
                    )
