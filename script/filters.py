"""Make xbuild/sandbox/filters.py: seccomp filters, compiled by libseccomp, as bytes.

Run it after a change of the lists in xbuild/plan/privileges.py: ``python -m script.filters``. A
start then needs neither libseccomp nor the milliseconds that compiling takes; a test runs the bytes
against the lists.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import tempfile
import textwrap

from xbuild.plan.privileges import (
    REFUSED_ENOSYS,
    REFUSED_EPERM,
    REFUSED_MOUNT,
    REFUSED_SOCKET_FAMILY,
    SKIPPED_IOCTL,
    SKIPPED_SYNC,
)

# seccomp.h
SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_ACT_ERRNO = 0x00050000
SCMP_FLTATR_ACT_BADARCH = 2
SCMP_FLTATR_CTL_OPTIMIZE = 8
SCMP_CMP_EQ = 4
SCMP_ARCH_NATIVE = 0
_BALANCED_TREE = 2
# linux/audit.h: the machine's own, and what else its kernel runs natively
ARCHITECTURES = {
    "x86_64": ("x86_64", "x86", "x32"),
    "aarch64": ("aarch64", "arm"),
}
# By socketcall(2), whose arguments no filter can see, libseccomp would refuse every socket.
_WITH_SOCKETCALL = "x86"
TARGET = "xbuild/sandbox/filters.py"
_HEADER = '''"""Seccomp filters, in bytes of struct sock_filter, as script/filters.py makes them."""

from __future__ import annotations

PROGRAMS = {
'''


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def load() -> ctypes.CDLL:
    """Return libseccomp. Raises OSError where it is not installed."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_remove.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_merge.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    return library


class Compiler:
    """One filter in the making, for programs of some architectures."""

    def __init__(self, *architectures: str) -> None:
        self._library = load()
        self._context = self._library.seccomp_init(SCMP_ACT_ALLOW)
        foreign = SCMP_ACT_ERRNO | errno.ENOSYS
        self._check(self._library.seccomp_attr_set(self._context, SCMP_FLTATR_ACT_BADARCH, foreign))
        self._check(
            self._library.seccomp_attr_set(self._context, SCMP_FLTATR_CTL_OPTIMIZE, _BALANCED_TREE)
        )
        self._check(self._library.seccomp_arch_remove(self._context, SCMP_ARCH_NATIVE))
        for name in architectures:
            token = self._library.seccomp_arch_resolve_name(name.encode())
            self._check(self._library.seccomp_arch_add(self._context, token))

    def answer(self, names: tuple[str, ...], error: int) -> None:
        """Answer calls with an error number, or with success without doing anything for 0."""
        for name in names:
            self._rule(self._number(name), error, None)

    def answer_socket(self, family: int, error: int) -> None:
        """Answer socket(2) of one family."""
        self._rule(self._number("socket"), error, _Comparison(0, SCMP_CMP_EQ, family, 0))

    def skip_ioctl(self, request: int) -> None:
        """Let one request of ioctl(2) succeed without doing anything."""
        self._rule(self._number("ioctl"), 0, _Comparison(1, SCMP_CMP_EQ, request, 0))

    def join(self, other: Compiler) -> None:
        """Take over the filter of other architectures."""
        self._check(self._library.seccomp_merge(self._context, other._context))

    def program(self) -> bytes:
        """Return the instructions."""
        with tempfile.TemporaryFile() as file:
            self._check(self._library.seccomp_export_bpf(self._context, file.fileno()))
            self._library.seccomp_release(self._context)
            file.seek(0)
            return file.read()

    def _number(self, name: str) -> int:
        number: int = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            raise LookupError(f"libseccomp does not know {name}")
        return number

    def _rule(self, number: int, error: int, comparison: _Comparison | None) -> None:
        count, array = (0, None) if comparison is None else (1, ctypes.byref(comparison))
        action = SCMP_ACT_ERRNO | error
        self._check(
            self._library.seccomp_rule_add_array(self._context, action, number, count, array)
        )

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))


def compile_filters(machine: str) -> dict[str, bytes]:
    """Return the programs of a machine by the name of their filter."""
    names = ARCHITECTURES[machine]
    refuse = Compiler(*(name for name in names if name != _WITH_SOCKETCALL))
    refuse.answer_socket(REFUSED_SOCKET_FAMILY, errno.EAFNOSUPPORT)
    parts = [refuse]
    if _WITH_SOCKETCALL in names:
        parts.append(Compiler(_WITH_SOCKETCALL))
    for part in parts:
        part.answer(REFUSED_EPERM, errno.EPERM)
        part.answer(REFUSED_ENOSYS, errno.ENOSYS)
    for part in parts[1:]:
        refuse.join(part)
    no_sync = Compiler(*names)
    no_sync.answer(SKIPPED_SYNC, 0)
    no_flush = Compiler(*names)
    no_flush.skip_ioctl(SKIPPED_IOCTL)
    no_mount = Compiler(*names)
    no_mount.answer(REFUSED_MOUNT, errno.EPERM)
    return {
        "refuse": refuse.program(),
        "no-sync": no_sync.program(),
        "no-flush": no_flush.program(),
        "no-mount": no_mount.program(),
    }


def main() -> None:
    """Write the module."""
    text = _HEADER
    for machine in ARCHITECTURES:
        text += f'    "{machine}": {{\n'
        for name, program in compile_filters(machine).items():
            text += f'        "{name}": (\n'
            for line in textwrap.wrap(program.hex(), 80):
                text += f'            "{line}"\n'
            text += "        ),\n"
        text += "    },\n"
    with open(TARGET, "w", encoding="ascii") as file:
        file.write(text + "}\n")


if __name__ == "__main__":
    main()
