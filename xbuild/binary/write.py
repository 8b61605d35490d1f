"""Our own ELF writer: static programs of a hundred-odd bytes that print a text and exit.

Scope: proof that programs of an architecture run here, without a toolchain or a foreign file. The
machine code is ours, written by hand from the architectures' manuals and each kernel port's system
call convention (syscall(2)); tests run all of it.

The file is one read-execute segment: file header, program header, text, code. The text precedes the
code, so that its address is a constant of each header size, and only two numbers are filled in.
"""

from __future__ import annotations

import struct

from xbuild.binary.elf import ELFMAG, ET_EXEC, EV_CURRENT, PT_LOAD
from xbuild.errors import UnknownArchitecture
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.record import ByteOrder

TEXT_LIMIT = 127  # bytes: what the smallest immediate operand (sh4, m68k) can say

_BASE = 0x400000  # where static programs usually lie: above any vm.mmap_min_addr
_ALIGNMENT = 0x10000  # the largest page of any port
_CODE_ALIGNMENT = 8
_HEADERS_SIZE = {32: 52 + 32, 64: 64 + 56}  # so the text lies at 0x400054 or 0x400078
_PF_X, _PF_R = 1, 4


class _Code(Record):
    """write(1, text, length) and exit(status) as units of 1, 2 or 4 bytes.

    ``length`` and ``status`` say which unit holds the number, shifted left by how many bits.
    ``order`` is that of instructions, where it is not that of data.
    """

    unit: int
    units: tuple[int, ...]
    length: tuple[int, int]
    status: tuple[int, int]
    flags: int = 0
    order: ByteOrder | None = None


# fmt: off
_AARCH64 = (  # mov x0, 1; mov x1, TEXT (2); mov x2, LENGTH; mov x8, 64; svc 0
    0xD2800020, 0xD2A00801, 0xF2800F01, 0xD2800002, 0xD2800808, 0xD4000001,
    0xD2800000, 0xD2800BA8, 0xD4000001)  # mov x0, STATUS; mov x8, 93; svc 0
_ARM = (  # mov r0, 1; mov r1, BASE; add r1, r1, 0x54; mov r2, LENGTH; mov r7, 4; svc 0
    0xE3A00001, 0xE3A01501, 0xE2811054, 0xE3A02000, 0xE3A07004, 0xEF000000,
    0xE3A00000, 0xE3A07001, 0xEF000000)  # mov r0, STATUS; mov r7, 1; svc 0
_MICROBLAZE = (  # addik r5, r0, 1; imm; addik r6, r0, TEXT; addik r7, r0, LENGTH;
    0x30A00001, 0xB0000040, 0x30C00054, 0x30E00000, 0x31800004, 0xB9CC0008,  # r12 = 4; brki r14, 8
    0x30A00000, 0x31800001, 0xB9CC0008)  # addik r5, r0, STATUS; addik r12, r0, 1; brki r14, 8
_PPC = (  # li r3, 1; lis r4; ori r4, TEXT; li r5, LENGTH; li r0, 4; sc
    0x38600001, 0x3C800040, 0x60840054, 0x38A00000, 0x38000004, 0x44000002,
    0x38600000, 0x38000001, 0x44000002)  # li r3, STATUS; li r0, 1; sc
_PPC64 = (*_PPC[:2], 0x60840078, *_PPC[3:])
_SH4 = (  # mov 1, r4; mov 0x40, r5; shll16 r5; add 0x54, r5; mov LENGTH, r6; mov 4, r3; trapa
    0xE401, 0xE540, 0x4528, 0x7554, 0xE600, 0xE304, 0xC313,
    0xE400, 0xE301, 0xC311)  # mov STATUS, r4; mov 1, r3; trapa 0x11
_SPARC = (  # mov 1, %o0; sethi, or TEXT, %o1; mov LENGTH, %o2; mov 4, %g1; ta 0x10
    0x90102001, 0x13001000, 0x92126054, 0x94102000, 0x82102004, 0x91D02010,
    0x90102000, 0x82102001, 0x91D02010)  # mov STATUS, %o0; mov 1, %g1; ta 0x10


def _mips(text: int, write: int, leave: int) -> tuple[int, ...]:
    return (  # li a0, 1; lui, addiu a1, TEXT; li a2, LENGTH; li v0; syscall
        0x24040001, 0x3C050040, 0x24A50000 | text, 0x24060000, 0x24020000 | write, 0x0000000C,
        0x24040000, 0x24020000 | leave, 0x0000000C)  # li a0, STATUS; li v0; syscall


def _riscv(text: int) -> tuple[int, ...]:
    return (  # li a0, 1; lui, addi a1, TEXT; li a2, LENGTH; li a7, 64; ecall
        0x00100513, 0x004005B7, 0x00058593 | text << 20, 0x00000613, 0x04000893, 0x00000073,
        0x00000513, 0x05D00893, 0x00000073)  # li a0, STATUS; li a7, 93; ecall


_O32 = _mips(0x54, 4004, 4001)
_N32 = _mips(0x54, 6001, 6058)
_N64 = _mips(0x78, 5001, 5058)

_CODE = {
    "aarch64": _Code(4, _AARCH64, (3, 5), (6, 5)),
    "aarch64_be": _Code(4, _AARCH64, (3, 5), (6, 5), order="little"),
    "alpha": _Code(4, (  # lda $16, 1; ldah, lda $17, TEXT; lda $18, LENGTH; lda $0, 4; callsys
        0x221F0001, 0x263F0040, 0x22310078, 0x225F0000, 0x201F0004, 0x00000083,
        0x221F0000, 0x201F0001, 0x00000083), (3, 0), (6, 0)),  # lda $16, STATUS; lda $0, 1; callsys
    "arm": _Code(4, _ARM, (3, 0), (6, 0), 0x05000000),  # EF_ARM_EABI_VER5
    "armeb": _Code(4, _ARM, (3, 0), (6, 0), 0x05800000, "little"),  # and EF_ARM_BE8
    "cris": _Code(2, (  # moveq 1, $r10; move.d TEXT, $r11; move.d LENGTH, $r12; moveq 4, $r9; break
        0xA241, 0xBE6F, 0x0054, 0x0040, 0xCE6F, 0, 0, 0x9244, 0xE93D,
        0xAE6F, 0, 0, 0x9241, 0xE93D), (5, 0), (10, 0)),  # move.d STATUS, $r10; moveq 1, $r9; break
    "hexagon": _Code(4, (  # r0 = 1; r1 = 0x54; r1.h = 0x40; r2 = LENGTH; r6 = 64; trap0(1)
        0x7800C020, 0x7800CA81, 0x7221C040, 0x7800C002, 0x7800C806, 0x5400C004,
        0x7800C000, 0x7800CBA6, 0x5400C004), (3, 5), (6, 5), 0x60),  # EF_HEXAGON_MACH_V60
    "hppa": _Code(4, (  # ldi 1, %r26; ldil, ldo TEXT, %r25; ldi LENGTH, %r24; ble; ldi 4, %r20
        0x341A0002, 0x23200008, 0x373900A8, 0x34180000, 0xE4008200, 0x34140008,
        0x341A0000, 0xE4008200, 0x34140002), (3, 1), (6, 1), 0x0210),  # EFA_PARISC_1_1
    "i386": _Code(1, tuple(  # mov ebx, 1; mov ecx, TEXT; mov edx, LENGTH; mov eax, 4; int 0x80
        b"\xbb\x01\0\0\0\xb9\x54\0\x40\0\xba\0\0\0\0\xb8\x04\0\0\0\xcd\x80"
        b"\xbb\0\0\0\0\xb8\x01\0\0\0\xcd\x80"), (11, 0), (23, 0)),  # ebx = STATUS; eax = 1
    "loongarch64": _Code(4, (  # ori a0, 1; lu12i.w, ori a1, TEXT; ori a2, LENGTH; ori a7; syscall
        0x03800404, 0x14008005, 0x0381E0A5, 0x03800006, 0x0381000B, 0x002B0000,
        0x03800004, 0x0381740B, 0x002B0000), (3, 10), (6, 10), 0x41),  # LP64S, object ABI 1
    "m68k": _Code(2, (  # moveq 1, d1; move.l TEXT, d2; moveq LENGTH, d3; moveq 4, d0; trap 0
        0x7201, 0x243C, 0x0040, 0x0054, 0x7600, 0x7004, 0x4E40,
        0x7200, 0x7001, 0x4E40), (4, 0), (7, 0)),  # moveq STATUS, d1; moveq 1, d0; trap 0
    "microblaze": _Code(4, _MICROBLAZE, (3, 0), (6, 0)),
    "microblazeel": _Code(4, _MICROBLAZE, (3, 0), (6, 0)),
    # EF_MIPS_NOREORDER with EF_MIPS_ABI_O32, or EF_MIPS_ARCH_3 (and EF_MIPS_ABI2)
    "mips": _Code(4, _O32, (3, 0), (6, 0), 0x1001),
    "mips64": _Code(4, _N64, (3, 0), (6, 0), 0x20000001),
    "mips64el": _Code(4, _N64, (3, 0), (6, 0), 0x20000001),
    "mipsel": _Code(4, _O32, (3, 0), (6, 0), 0x1001),
    "mipsn32": _Code(4, _N32, (3, 0), (6, 0), 0x20000021),
    "mipsn32el": _Code(4, _N32, (3, 0), (6, 0), 0x20000021),
    "nios2": _Code(4, (  # movi r4, 1; movhi, addi r5, TEXT; movi r6, LENGTH; movi r2, 64; trap
        0x01000044, 0x01401034, 0x29401504, 0x01800004, 0x00801004, 0x003B683A,
        0x01000004, 0x00801744, 0x003B683A), (3, 6), (6, 6)),  # movi r4, STATUS; movi r2, 93; trap
    "or1k": _Code(4, (  # l.addi r3, 1; l.movhi, l.ori r4, TEXT; l.addi r5, LENGTH; r11 = 64; l.sys
        0x9C600001, 0x18800040, 0xA8840054, 0x9CA00000, 0x9D600040, 0x20000001,
        0x9C600000, 0x9D60005D, 0x20000001), (3, 0), (6, 0)),  # l.addi r3, STATUS; r11 = 93; l.sys
    "ppc": _Code(4, _PPC, (3, 0), (6, 0)),
    "ppc64": _Code(4, _PPC64, (3, 0), (6, 0), 2),  # ELFv2: the entry is code, not a descriptor
    "ppc64le": _Code(4, _PPC64, (3, 0), (6, 0), 2),
    "riscv32": _Code(4, _riscv(0x54), (3, 20), (6, 20)),
    "riscv64": _Code(4, _riscv(0x78), (3, 20), (6, 20)),
    "s390x": _Code(2, (  # lghi r2, 1; llilh, aghi r3, TEXT; lghi r4, LENGTH; svc 4
        0xA729, 0x0001, 0xA53E, 0x0040, 0xA73B, 0x0078, 0xA749, 0, 0x0A04,
        0xA729, 0, 0x0A01), (7, 0), (10, 0)),  # lghi r2, STATUS; svc 1
    "sh4": _Code(2, _SH4, (4, 0), (7, 0), 9),  # EF_SH4
    "sh4eb": _Code(2, _SH4, (4, 0), (7, 0), 9),
    "sparc": _Code(4, _SPARC, (3, 0), (6, 0)),
    "sparc32plus": _Code(4, _SPARC, (3, 0), (6, 0), 0x100),  # EF_SPARC_32PLUS
    "sparc64": _Code(4, (*_SPARC[:2], 0x92126078, *_SPARC[3:5], 0x91D0206D,  # ta 0x6d
        *_SPARC[6:8], 0x91D0206D), (3, 0), (6, 0)),
    "x86_64": _Code(1, tuple(  # mov edi, 1; mov esi, TEXT; mov edx, LENGTH; mov eax, 1; syscall
        b"\xbf\x01\0\0\0\xbe\x78\0\x40\0\xba\0\0\0\0\xb8\x01\0\0\0\x0f\x05"
        b"\xbf\0\0\0\0\xb8\x3c\0\0\0\x0f\x05"), (11, 0), (23, 0)),  # edi = STATUS; eax = 60
    "xtensa": _Code(1, tuple(  # movi a6, 1; movi, slli, addi a3, TEXT; movi a4, LENGTH; movi a2, 13
        b"\x62\xa0\x01\x32\xa0\x40\0\x33\x11\x32\xc3\x54\x42\xa0\0\x22\xa0\x0d\0\x50\0"
        b"\x62\xa0\0\x22\xa0\x76\0\x50\0"), (14, 0), (23, 0), 0x300),  # a6 = STATUS; a2 = 118
    "xtensaeb": _Code(1, tuple(  # the same with the fields of each instruction reversed
        b"\x26\x0a\x01\x23\x0a\x40\0\x33\x11\x23\x3c\x54\x24\x0a\0\x22\x0a\x0d\0\x05\0"
        b"\x26\x0a\0\x22\x0a\x76\0\x05\0"), (14, 0), (23, 0), 0x300),
}
# fmt: on


def has_tiny_program(arch: Arch) -> bool:
    """Tell whether ``tiny_program`` has code for an architecture."""
    return arch.name in _CODE


def tiny_program(arch: Arch, text: bytes, *, status: int = 0) -> bytes:
    """Return a static ET_EXEC file that writes ``text`` to descriptor 1 and exits with ``status``.

    At most ``TEXT_LIMIT`` bytes of text and a status of 0 to 255, else ValueError. Raises
    UnknownArchitecture where there is no code for ``arch``.
    """
    if len(text) > TEXT_LIMIT or not 0 <= status <= 255:
        raise ValueError(f"a tiny program takes {TEXT_LIMIT} bytes and a status up to 255")
    code = _CODE.get(arch.name)
    if code is None:
        raise UnknownArchitecture(f"There is no test program for {arch.common_name}")
    size = _HEADERS_SIZE[arch.bits] + len(text)
    gap = -size % _CODE_ALIGNMENT
    body = text + bytes(gap) + _filled(code, arch, len(text), status)
    return _headers(arch, code.flags, _BASE + size + gap, len(body)) + body


def _filled(code: _Code, arch: Arch, length: int, status: int) -> bytes:
    units = list(code.units)
    for (index, shift), number in ((code.length, length), (code.status, status)):
        units[index] |= number << shift
    order = code.order or arch.order
    return b"".join(unit.to_bytes(code.unit, order) for unit in units)


def _headers(arch: Arch, flags: int, entry: int, body_size: int) -> bytes:
    """Return Ehdr and one Phdr that loads the whole file at ``_BASE``."""
    mark = "<" if arch.order == "little" else ">"
    size = _HEADERS_SIZE[arch.bits] + body_size
    ident = ELFMAG + bytes((arch.bits // 32, 1 if mark == "<" else 2, EV_CURRENT)) + bytes(9)
    start = (ET_EXEC, arch.machine, EV_CURRENT, entry)
    if arch.bits == 32:
        header = struct.pack(mark + "HHIIIIIHHHHHH", *start, 52, 0, flags, 52, 32, 1, 0, 0, 0)
        load = (PT_LOAD, 0, _BASE, _BASE, size, size, _PF_R | _PF_X, _ALIGNMENT)
        return ident + header + struct.pack(mark + "8I", *load)
    header = struct.pack(mark + "HHIQQQIHHHHHH", *start, 64, 0, flags, 64, 56, 1, 0, 0, 0)
    load = (PT_LOAD, _PF_R | _PF_X, 0, _BASE, _BASE, size, size, _ALIGNMENT)
    return ident + header + struct.pack(mark + "IIQQQQQQ", *load)
