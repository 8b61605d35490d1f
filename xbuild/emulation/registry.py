"""The kernel's binfmt_misc registry: read it, judge it, and add or remove entries of ours.

Scope: one instance, mounted at ``directory``; the host's unless told otherwise. Whether an entry
really works is found by running a program (``verification``). Nothing here mounts anything, and
no entry is ever touched that is not named ``xbuild-…``.
Format: entry_status() and bm_register_write() of fs/binfmt_misc.c, admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import errno
import os
import re

from xbuild.binary.arch import Arch, host_arch, runs_natively32
from xbuild.emulation.rules import (
    BINFMT_P_SUFFIX,
    ET_DYN,
    ET_EXEC,
    NAME_PREFIX,
    Registration,
    bytes_match,
    refuse_catching,
    rule_matches,
    sample_header,
)
from xbuild.errors import BinfmtError
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

BINFMT_DIRECTORY = HostPath("/proc/sys/fs/binfmt_misc")
PERSISTENT_DIRECTORY = HostPath("/etc/binfmt.d")
_CONTROL_FILES = ("register", "status")
_ENTRY = re.compile(
    r"(?P<state>enabled|disabled)\n"
    r"interpreter (?P<interpreter>.+)\n"
    r"flags: (?P<flags>[A-Z]*)\n"
    r"(?:extension \.(?P<extension>.+)|offset (?P<offset>\d+)\nmagic (?P<magic>[0-9a-f]+)"
    r"(?:\nmask (?P<mask>[0-9a-f]+))?)\n",
    re.DOTALL,
)


class Entry(Record):
    """An entry as the kernel shows it. One by file-name extension has no magic.

    ``mask`` is all ones where the kernel shows none. ``flags`` are letters: C brings O along, and
    the order means nothing.
    """

    name: str
    enabled: bool
    interpreter: HostPath
    flags: frozenset[str]
    offset: int
    magic: bytes
    mask: bytes
    extension: str | None = None

    def matches(self, header: bytes) -> bool:
        """Tell whether a file that begins with ``header`` is this entry's, were it enabled."""
        return bool(self.magic) and bytes_match(self.magic, self.mask, self.offset, header)


class Usable(Record):
    """The kernel gives programs of the architecture to this entry, by all that it shows."""

    entry: Entry


class Missing(Record):
    """No entry matches."""


class Conflicting(Record):
    """An entry is in the way or does only half of the work; ``reason`` completes "it …"."""

    entry: Entry
    reason: str


Verdict: TypeAlias = "Usable | Missing | Conflicting"


def parse_entry(name: str, text: str) -> Entry:
    """Parse the content of an entry's file. Raises BinfmtError for text of another form."""
    fields = _ENTRY.fullmatch(text)
    if fields is None:
        raise BinfmtError(f"Cannot understand the binfmt_misc entry {name}: {text[:80]!r}")
    magic = bytes.fromhex(fields["magic"] or "")
    mask = bytes.fromhex(fields["mask"]) if fields["mask"] else b"\xff" * len(magic)
    return Entry(
        name,
        fields["state"] == "enabled",
        HostPath(fields["interpreter"]),
        frozenset(fields["flags"]),
        int(fields["offset"] or 0),
        magic,
        mask,
        fields["extension"],
    )


def read_entries(directory: HostPath = BINFMT_DIRECTORY) -> tuple[Entry, ...]:
    """Return all entries, newest first: the order in which the kernel asks them.

    Raises BinfmtError when no binfmt_misc is mounted at ``directory``.
    """
    entries = []
    for name in _names_newest_first(directory):
        try:
            with open(f"{directory}/{name}", "rb") as file:
                entries.append(parse_entry(name, os.fsdecode(file.read())))
        except FileNotFoundError:
            continue  # removed since
    return tuple(entries)


def is_registry_enabled(directory: HostPath = BINFMT_DIRECTORY) -> bool:
    """Tell whether binfmt_misc as a whole is switched on. Raises BinfmtError if not mounted."""
    try:
        with open(f"{directory}/status", encoding="ascii") as file:
            return file.read() == "enabled\n"
    except OSError as error:
        raise _not_mounted(directory) from error


def judge(arch: Arch, entries: Sequence[Entry], *, is_enabled: bool = True) -> Verdict:
    """Decide what the kernel does with programs of ``arch``, from ``entries`` newest first.

    ``is_enabled`` is the registry's own switch. Of several entries the most recent enabled one
    wins. The interpreter's file is not looked at.
    """
    winners = [_winner(sample_header(arch, elf_type=t), entries) for t in (ET_EXEC, ET_DYN)]
    winner = winners[0] or winners[1]
    if winner is None:
        idle = next((e for e in entries if e.matches(sample_header(arch))), None)
        return Conflicting(idle, "is disabled") if idle is not None else Missing()
    if not is_enabled:
        return Conflicting(winner, "is idle, since binfmt_misc as a whole is disabled")
    if winners[0] != winners[1]:
        return Conflicting(winner, "matches only some of the programs, by their ELF type")
    if winner.matches(sample_header(host_arch())):
        return Conflicting(winner, "matches this host's own programs too")
    return Usable(winner)


def host_flags(interpreter: HostPath, *, kernel: str, with_credentials: bool) -> str:
    """Choose the flags of a host-wide entry; ``kernel`` is uname's release.

    F, so that it works in containers and outlives the interpreter's file. P, so that programs see
    their own argv[0], where the kernel tells the interpreter about it (5.12, 2347961b11d4) or the
    interpreter's name does. O, so that programs of mode 0711 run; the kernel then forbids to dump
    and trace them. C only on request: any foreign setuid program would then be a way to its
    owner's privileges, as qemu is not made to withstand its user (Debian dropped C for that in
    its qemu 1:7.2+dfsg-7+deb12u15).
    """
    version = tuple(int(part) for part in re.findall(r"\d+", kernel)[:2])
    has_p = version >= (5, 12) or interpreter.endswith(BINFMT_P_SUFFIX)
    return ("P" if has_p else "") + "O" + ("C" if with_credentials else "") + "F"


def register(registration: Registration, directory: HostPath = BINFMT_DIRECTORY) -> None:
    """Add an entry of ours, in place of one of the same name.

    Raises BinfmtError when the name is not ``xbuild-…``, the rule matches programs that the host
    runs itself, or the kernel refuses; an entry of that name is then still there, unless it was
    the kernel that refused the new one.
    """
    _check_ours(registration.name)
    line = registration.line()
    entries = read_entries(directory)
    _refuse_native(registration, entries)
    if any(entry.name == registration.name for entry in entries):
        unregister(registration.name, directory)
    try:
        _write(f"{directory}/register", line)
    except OSError as error:
        raise _refused(registration, directory, error) from error


def unregister(name: str, directory: HostPath = BINFMT_DIRECTORY) -> None:
    """Remove an entry of ours. Raises BinfmtError for another's, or when there is none."""
    _check_ours(name)
    try:
        _write(f"{directory}/{name}", b"-1")
    except FileNotFoundError as error:
        is_registry_enabled(directory)
        raise BinfmtError(f"Cannot remove the binfmt_misc entry {name}: there is none") from error
    except OSError as error:
        raise BinfmtError(
            f"Cannot remove the binfmt_misc entry {name}: {error.strerror}", _hint_for(error)
        ) from error


def persist(registration: Registration, directory: HostPath = PERSISTENT_DIRECTORY) -> HostPath:
    """Write a binfmt.d(5) file that registers the entry at boot, and return its path."""
    path = _persistent_path(registration.name, directory)
    text = b"# Written by xbuild binfmt register --persist\n" + registration.line() + b"\n"
    new = f"{path}.new"  # does not end in .conf: never read
    try:
        os.makedirs(directory, exist_ok=True)
        with open(new, "wb", opener=_world_readable) as file:
            file.write(text)
        os.rename(new, path)
    except OSError as error:
        if os.path.lexists(new):
            os.unlink(new)
        raise BinfmtError(f"Cannot write {path}: {error.strerror}", _hint_for(error)) from error
    return path


def forget(name: str, directory: HostPath = PERSISTENT_DIRECTORY) -> bool:
    """Remove the file that ``persist`` wrote; False if there was none. Raises BinfmtError."""
    path = _persistent_path(name, directory)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BinfmtError(f"Cannot remove {path}: {error.strerror}", _hint_for(error)) from error
    return True


def persistent_names(directory: HostPath = PERSISTENT_DIRECTORY) -> tuple[str, ...]:
    """Return the names of our entries that binfmt.d files register at boot."""
    try:
        files = os.listdir(directory)
    except OSError:
        return ()
    ours = (f for f in files if f.startswith(NAME_PREFIX) and f.endswith(".conf"))
    return tuple(sorted(f.removesuffix(".conf") for f in ours))


def _names_newest_first(directory: HostPath) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise _not_mounted(directory) from error
    if not set(_CONTROL_FILES) <= set(names):
        raise _not_mounted(directory)
    # libfs lists the newest first, so the control files last; should that ever change, they tell.
    if names[0] in _CONTROL_FILES:
        names.reverse()
    return [name for name in names if name not in _CONTROL_FILES]


def _winner(header: bytes, entries: Sequence[Entry]) -> Entry | None:
    return next((e for e in entries if e.enabled and e.matches(header)), None)


def _check_ours(name: str) -> None:
    if not name.startswith(NAME_PREFIX) or name == NAME_PREFIX:
        raise BinfmtError(
            f"Not an entry of xbuild's, so left alone: {name}",
            f"entries that xbuild manages are named {NAME_PREFIX}ARCHITECTURE",
        )


def _refuse_native(registration: Registration, entries: Sequence[Entry]) -> None:
    """Refuse a rule that takes programs away from the host, 32-bit ones it runs included."""
    from xbuild.emulation.trial import try_kernel

    host = host_arch()
    refuse_catching(registration, host)
    native32 = runs_natively32(host)
    if native32 is None or not rule_matches(registration, sample_header(native32)):
        return
    if _winner(sample_header(native32), entries) is not None:
        return  # they are emulated already
    try:
        is_native = try_kernel(native32).is_as_expected
    except OSError:
        is_native = False
    if is_native:
        refuse_catching(registration, native32)


def _persistent_path(name: str, directory: HostPath) -> HostPath:
    _check_ours(name)
    if "/" in name:
        raise BinfmtError(f"Not a name that binfmt_misc takes: {name!r}")
    return HostPath(f"{directory}/{name}.conf")


def _write(path: str, content: bytes) -> None:
    # One write(2), since each is a whole command; no O_CREAT, which binfmt_misc does not do.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _world_readable(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _refused(registration: Registration, directory: HostPath, error: OSError) -> BinfmtError:
    if error.errno == errno.ENOENT and not os.path.exists(f"{directory}/register"):
        return _not_mounted(directory)
    why = error.strerror
    if "F" in registration.flags and not os.access(registration.interpreter, os.X_OK):
        why = f"{registration.interpreter} cannot be executed ({error.strerror})"
    return BinfmtError(
        f"Cannot register {registration.name} with binfmt_misc: {why}", _hint_for(error)
    )


def _hint_for(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        if os.geteuid() != 0:
            return "only root may change it: run the same with sudo"
        return "only the host's root may change it: do this outside of the container"
    if error.errno == errno.EROFS:
        return "it is mounted read-only here, as in most containers: do this on the host itself"
    return ""


def _not_mounted(directory: HostPath) -> BinfmtError:
    if _kernel_has_binfmt():
        return BinfmtError(
            f"No binfmt_misc is mounted at {directory}",
            f"as root: mount -t binfmt_misc binfmt_misc {directory}\n"
            "or with systemd: systemctl start proc-sys-fs-binfmt_misc.mount",
        )
    return BinfmtError(
        "This kernel has no binfmt_misc loaded",
        "modprobe binfmt_misc; where that fails, the kernel lacks CONFIG_BINFMT_MISC",
    )


def _kernel_has_binfmt() -> bool:
    try:
        with open("/proc/filesystems", encoding="ascii") as file:
            return any(line.split()[-1:] == ["binfmt_misc"] for line in file)
    except OSError:
        return True
