"""Registrations: which header an architecture's rule matches, and the text the kernel takes.

Scope: pure values. What the kernel holds at the moment, and changing it, is in ``registry``.
Format: Documentation/admin-guide/binfmt-misc.rst and binfmt.d(5).
"""

from __future__ import annotations

import os

from xbuild.errors import BinfmtError
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch

# linux/binfmts.h, fs/binfmt_misc.c
BINPRM_BUF_SIZE = 256
MAX_REGISTER_LENGTH = 1920

# elf.h
ET_EXEC = 2
ET_DYN = 3
_IDENT_EXACT = 7  # magic, class, data, version
_IDENT_IGNORED = 9  # EI_OSABI, EI_ABIVERSION, EI_PAD: AppImage writes AI\x02 there
_E_FLAGS_OFFSET = {32: 36, 64: 48}
_EXEC_OR_DYN = 0xFFFE

FLAGS = "POCF"  # in the order in which the kernel prints them
NAME_PREFIX = "xbuild-"
BINFMT_P_SUFFIX = "-binfmt-P"  # Debian's names for a qemu that must be registered with flag P
_RESERVED_NAMES = (".", "..", "register", "status")


class Registration(Record):
    """One binfmt_misc rule by magic number, as it is written to ``register``.

    ``magic`` and ``mask`` have equal length and are compared from ``offset`` on, within the first
    256 bytes of a file (128 before Linux 5.0). ``flags`` is a subset of ``POCF``.
    """

    name: str
    magic: bytes
    mask: bytes
    offset: int
    interpreter: HostPath
    flags: str

    def line(self) -> bytes:
        """Return the ``:name:M:offset:magic:mask:interpreter:flags`` text, without a newline.

        Raises BinfmtError for a rule that the kernel would refuse or read differently.
        """
        _check_name(self.name)
        _check_interpreter(self.interpreter)
        _check_match(self)
        text = b":%s:M:%d:%s:%s:%s:%s" % (
            os.fsencode(self.name),
            self.offset,
            _escaped(self.magic),
            _escaped(self.mask),
            os.fsencode(self.interpreter),
            self.flags.encode(),
        )
        if len(text) > MAX_REGISTER_LENGTH:
            raise BinfmtError(
                f"The rule {self.name} takes {len(text)} bytes, the kernel {MAX_REGISTER_LENGTH}",
                "use a shorter path for the interpreter",
            )
        return text


def magic_and_mask(arch: Arch) -> tuple[bytes, bytes]:
    """Return what identifies programs of ``arch``: 20 bytes, or up to e_flags where those decide.

    Class, data, ELF version and e_machine are exact, e_type is ET_EXEC or ET_DYN, and of e_flags
    the bits of ``arch.flags_mask`` count.
    """
    magic = bytearray(b"\x7fELF" + bytes((_ei_class(arch), _ei_data(arch), 1)))
    mask = bytearray(b"\xff" * _IDENT_EXACT)
    magic += bytes(_IDENT_IGNORED)
    mask += bytes(_IDENT_IGNORED)
    magic += ET_EXEC.to_bytes(2, arch.order) + arch.machine.to_bytes(2, arch.order)
    mask += _EXEC_OR_DYN.to_bytes(2, arch.order) + b"\xff\xff"
    if arch.flags_mask:
        between = bytes(_E_FLAGS_OFFSET[arch.bits] - len(magic))
        magic += between + (arch.flags_value & arch.flags_mask).to_bytes(4, arch.order)
        mask += between + arch.flags_mask.to_bytes(4, arch.order)
    return bytes(magic), bytes(mask)


def sample_header(arch: Arch, *, elf_type: int = ET_EXEC) -> bytes:
    """Return the first 64 bytes of a program of ``arch`` as a linker writes them, else zero."""
    header = bytearray(64)
    header[:7] = b"\x7fELF" + bytes((_ei_class(arch), _ei_data(arch), 1))
    header[16:18] = elf_type.to_bytes(2, arch.order)
    header[18:20] = arch.machine.to_bytes(2, arch.order)
    header[20:24] = (1).to_bytes(4, arch.order)
    at = _E_FLAGS_OFFSET[arch.bits]
    header[at : at + 4] = arch.flags_value.to_bytes(4, arch.order)
    return bytes(header)


def derive_rule(
    arch: Arch, *, interpreter: HostPath, flags: str = FLAGS, name: str | None = None
) -> Registration:
    """Derive the rule for ``arch`` from the architecture table alone.

    The name is ``xbuild-ARCH`` unless given. Raises BinfmtError when the rule would match the
    host's own programs: the kernel asks binfmt_misc first, so that nothing would run any more.
    """
    from xbuild.binary.arch import host_arch

    magic, mask = magic_and_mask(arch)
    name = NAME_PREFIX + arch.name if name is None else name
    rule = Registration(name, magic, mask, 0, interpreter, flags)
    refuse_catching(rule, host_arch())
    return rule


def refuse_catching(rule: Registration, host: Arch) -> None:
    """Raise BinfmtError when ``rule`` matches a program of ``host``."""
    if any(rule_matches(rule, sample_header(host, elf_type=t)) for t in (ET_EXEC, ET_DYN)):
        raise BinfmtError(
            f"The rule {rule.name} matches {host.name} programs, which this host runs itself:"
            f" every one of them would be started through {rule.interpreter}",
            f"programs for {host.name} need no interpreter here",
        )


def rule_matches(registration: Registration, header: bytes) -> bool:
    """Tell whether the kernel would choose the rule for a file that begins with ``header``.

    As in search_binfmt_handler of fs/binfmt_misc.c, what the file lacks reads as zeros.
    """
    return bytes_match(registration.magic, registration.mask, registration.offset, header)


def bytes_match(magic: bytes, mask: bytes | None, offset: int, header: bytes) -> bool:
    """Tell whether ``header`` from ``offset`` on equals ``magic`` in the bits of ``mask``."""
    size = len(magic)
    window = header[offset : offset + size].ljust(size, b"\0")
    bits = int.from_bytes(b"\xff" * size if mask is None else mask, "big")
    return (int.from_bytes(window, "big") ^ int.from_bytes(magic, "big")) & bits == 0


def parse_registration(line: bytes) -> Registration:
    """Parse a line as ``Registration.line`` and binfmt.d(5) write it, with any delimiter.

    Only rules by magic number; a mask left out becomes all ones. Raises BinfmtError.
    """
    text = line.strip(b"\n")
    fields = text[1:].split(text[:1]) if text else []
    if len(fields) != 7 or fields[1] != b"M":
        raise BinfmtError(f"Not a binfmt_misc rule by magic number: {line!r}")
    name, _, offset, magic, mask, interpreter, flags = fields
    if offset and not offset.isdigit():
        raise BinfmtError(f"The offset of the rule {os.fsdecode(name)} is no number: {offset!r}")
    magic_bytes = _unescaped(magic)
    return Registration(
        os.fsdecode(name),
        magic_bytes,
        _unescaped(mask) if mask else b"\xff" * len(magic_bytes),
        int(offset or b"0"),
        HostPath(os.fsdecode(interpreter)),
        flags.decode("ascii", "replace"),
    )


def _ei_class(arch: Arch) -> int:
    return 2 if arch.bits == 64 else 1


def _ei_data(arch: Arch) -> int:
    return 1 if arch.order == "little" else 2


def _escaped(data: bytes) -> bytes:
    # Every byte, so that neither NUL nor the delimiter nor a newline reaches the kernel's parser.
    return b"".join(b"\\x%02x" % byte for byte in data)


def _unescaped(text: bytes) -> bytes:
    head, *rest = text.split(b"\\x")
    data = head
    for part in rest:
        try:
            data += bytes.fromhex(part[:2].decode("ascii"))
        except (ValueError, UnicodeDecodeError) as error:
            raise BinfmtError(f"A broken \\x escape in a binfmt_misc rule: {text!r}") from error
        data += part[2:]
    return data


def _check_name(name: str) -> None:
    if not name or name in _RESERVED_NAMES or any(c in name for c in ":/\n\0"):
        raise BinfmtError(f"Not a name that binfmt_misc takes: {name!r}")
    if len(os.fsencode(name)) > 255:
        raise BinfmtError(f"A binfmt_misc name longer than 255 bytes: {name[:40]}…")


def _check_interpreter(interpreter: HostPath) -> None:
    if not interpreter.startswith("/") or any(c in interpreter for c in ":\n\0"):
        raise BinfmtError(
            f"Not a path that binfmt_misc takes for an interpreter: {interpreter!r}",
            "it must be absolute, and hold neither a colon nor a newline",
        )


def _check_match(rule: Registration) -> None:
    if not rule.magic or len(rule.mask) != len(rule.magic):
        raise BinfmtError(f"The rule {rule.name} needs magic and mask of one length, not empty")
    if rule.offset < 0 or rule.offset + len(rule.magic) > BINPRM_BUF_SIZE:
        raise BinfmtError(f"The rule {rule.name} looks beyond the first {BINPRM_BUF_SIZE} bytes")
    if set(rule.flags) - set(FLAGS):
        raise BinfmtError(f"The rule {rule.name} has unknown flags: {rule.flags}")
