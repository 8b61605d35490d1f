"""The copy of a static qemu-user that substitutes native programs: made once, kept by content.

``dispatch/dispatch.c`` tells what it does. The copy lies in
``$XDG_CACHE_HOME/xbuild/native/interpreters``, in a directory named for both parts.
"""

from __future__ import annotations

import hashlib
import os

from xbuild.binary.inject import inject
from xbuild.errors import DamagedElf, NoDispatcher, ToolsetError
from xbuild.record import HostPath
from xbuild.toolset.digests import Digests
from xbuild.toolset.manifest import native_directory

_DISPATCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dispatch")
_DIGEST = "sha256"


def dispatching(interpreter: HostPath, machine: str, *, remember: bool) -> HostPath:
    """Return the path of the copy of ``interpreter`` that substitutes native programs.

    It is made, or made anew where it is not as it was, if ``remember``; else it may not be there.
    ``machine`` is the host's. Raises NoDispatcher where there can be none: a machine without a
    dispatcher, an interpreter of an unexpected form; ToolsetError where it cannot be kept.
    """
    code = _code_for(machine)
    directory = native_directory()
    if directory is None:
        raise ToolsetError("No place for native tools", "set HOME or XDG_CACHE_HOME")
    digest = _digest_of(interpreter, remember=remember)
    name = f"{digest[:32]}-{hashlib.sha256(code).hexdigest()[:16]}"
    place = f"{directory}/interpreters/{name}"
    path = HostPath(f"{place}/{os.path.basename(interpreter)}")
    if remember and not _is_as_made(path, place):
        try:
            _make(path, place, interpreter, code)
        except OSError as error:
            raise ToolsetError(
                f"Cannot write {error.filename or path}: {error.strerror}",
                "make room, or set XDG_CACHE_HOME to where there is",
            ) from error
    return path


def _code_for(machine: str) -> bytes:
    try:
        with open(f"{_DISPATCH}/{machine}.bin", "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise NoDispatcher(f"there is none for hosts of {machine}") from None


def _digest_of(interpreter: HostPath, *, remember: bool) -> str:
    digests = Digests(interpreter)
    fd = os.open(interpreter, os.O_RDONLY | os.O_CLOEXEC)
    try:
        digest = digests.of(fd)
    finally:
        os.close(fd)
    if remember:
        digests.keep()
    return digest


def _is_as_made(path: HostPath, place: str) -> bool:
    try:
        with open(f"{place}/{_DIGEST}", encoding="ascii") as file:
            expected = file.read()
        if os.stat(place).st_uid != os.geteuid():
            return False
        return _digest_of(path, remember=True) == expected
    except (OSError, ValueError):
        return False


def _make(path: HostPath, place: str, interpreter: HostPath, code: bytes) -> None:
    with open(interpreter, "rb") as file:
        content = file.read()
    try:
        program = inject(content, code)
    except DamagedElf as error:
        raise NoDispatcher(error.message) from error
    os.makedirs(place, mode=0o755, exist_ok=True)
    if os.lstat(place).st_uid != os.geteuid():
        raise ToolsetError(
            f"Cannot use {place}: it is another user's, who could change it",
            "sudo -H, or set XDG_CACHE_HOME",
        )
    _write(f"{place}/{_DIGEST}", hashlib.sha256(program).hexdigest().encode(), 0o644)
    _write(path, program, 0o755)


def _write(path: str, content: bytes, mode: int) -> None:
    """Put a whole file in place; one that runs just now is left to those who run it."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
