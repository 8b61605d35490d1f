"""Host-wide registrations: entries of ours for the whole machine, made only if they work.

Scope: what ``xbuild binfmt register`` and ``unregister`` do for one architecture. Private
registrations, which containers use by default, are steps of a plan.
"""

from __future__ import annotations

import os
import stat

from xbuild.binary.arch import ARCHES, host_arch, runs_natively32
from xbuild.emulation.interpreters import find_interpreter, verified_interpreter
from xbuild.emulation.registry import (
    BINFMT_DIRECTORY,
    PERSISTENT_DIRECTORY,
    forget,
    host_flags,
    persist,
    persistent_names,
    read_entries,
    register,
    unregister,
)
from xbuild.emulation.rules import NAME_PREFIX, derive_rule
from xbuild.emulation.verification import Fails, Works, verify_registration
from xbuild.errors import BinfmtError, InterpreterError
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.binary.arch import Arch
    from xbuild.emulation.interpreters import Interpreter
    from xbuild.emulation.rules import Registration


class Registered(Record):
    """What was registered; ``file`` is the binfmt.d file that repeats it at boot, if any."""

    registration: Registration
    interpreter: Interpreter
    file: HostPath | None


class Unregistered(Record):
    """What was removed: the kernel's entry, the binfmt.d file, or both."""

    name: str
    had_entry: bool
    had_file: bool


def register_host_wide(
    arch: Arch,
    *,
    override: HostPath | None = None,
    with_credentials: bool = False,
    is_persistent: bool = False,
    directory: HostPath = BINFMT_DIRECTORY,
    persistent_directory: HostPath = PERSISTENT_DIRECTORY,
) -> Registered:
    """Register ``xbuild-ARCH``, having run a program through interpreter and entry both.

    Raises InterpreterError, and BinfmtError for a refused rule; when the new entry turns out not
    to work it is removed again.
    """
    interpreter = verified_interpreter(arch, override=override, remember=True)
    if with_credentials:
        _check_trustworthy(interpreter.path)
    flags = host_flags(
        interpreter.path, kernel=os.uname().release, with_credentials=with_credentials
    )
    rule = derive_rule(arch, interpreter=interpreter.path, flags=flags)
    register(rule, directory)
    verification = verify_registration(arch, directory=directory)
    if isinstance(verification, Fails):
        unregister(rule.name, directory)
        raise BinfmtError(f"Registered {rule.name}, but {verification.reason}: removed it again")
    file = persist(rule, persistent_directory) if is_persistent else None
    return Registered(rule, interpreter, file)


def unregister_host_wide(
    name: str,
    *,
    with_file: bool,
    directory: HostPath = BINFMT_DIRECTORY,
    persistent_directory: HostPath = PERSISTENT_DIRECTORY,
) -> Unregistered:
    """Remove an entry of ours, and with ``with_file`` what would bring it back at boot.

    Raises BinfmtError when there is neither, or for a name that is not ours.
    """
    had_file = with_file and forget(name, persistent_directory)
    has_entry = any(entry.name == name for entry in read_entries(directory))
    if has_entry or not had_file:
        unregister(name, directory)
    return Unregistered(name, has_entry, had_file)


def names_of_ours(
    *,
    with_files: bool,
    directory: HostPath = BINFMT_DIRECTORY,
    persistent_directory: HostPath = PERSISTENT_DIRECTORY,
) -> tuple[str, ...]:
    """Return the names of the entries that xbuild registered, or would at boot, sorted."""
    names = {e.name for e in read_entries(directory) if e.name.startswith(NAME_PREFIX)}
    if with_files:
        names.update(persistent_names(persistent_directory))
    return tuple(sorted(names))


def arches_to_register() -> tuple[Arch, ...]:
    """Return the architectures that have an interpreter here, need one, and do not run yet."""
    host = host_arch()
    native = (host, runs_natively32(host))
    return tuple(
        arch
        for arch in ARCHES
        if arch not in native and _has_interpreter(arch) and verify_registration(arch) != Works()
    )


def _has_interpreter(arch: Arch) -> bool:
    try:
        find_interpreter(arch)
    except InterpreterError:
        return False
    return True


def _check_trustworthy(path: HostPath) -> None:
    """With C, who can write the interpreter has the privileges of every setuid program.

    Or who can put another in its place, for the next boot: every directory on the way counts.
    """
    roots = {0, os.stat("/").st_uid}  # of this user namespace, and of the one that made the host
    for place in dict.fromkeys((*_way_to(path), *_way_to(os.path.realpath(path)))):
        try:
            status = os.stat(place)
        except OSError as error:
            raise BinfmtError(f"Cannot look at {place}: {error.strerror}") from error
        # In a directory like /tmp nobody renames what is root's.
        is_directory = stat.S_ISDIR(status.st_mode)
        is_sticky = is_directory and status.st_mode & stat.S_ISVTX
        writers = 0 if is_sticky else stat.S_IWGRP | stat.S_IWOTH
        if status.st_uid not in (roots if is_directory else {0}) or status.st_mode & writers:
            raise BinfmtError(
                f"Refusing to give setuid programs to {path}: others than root can write {place}",
                "register without --credential, or use an interpreter that only root can write",
            )


def _way_to(path: str) -> Iterator[str]:
    yield path
    while path != (path := os.path.dirname(path)):
        yield path
