"""The entry of a running container: a locked file and a socket, in a directory of its owner's.

``NAME.entry`` has lines KEY=VALUE and is locked (flock(2)) as long as the container lives, by the
very file that process 1 keeps open: an entry that can be locked is stale, whatever process numbers
say. At ``NAME.control`` process 1 listens for commands that join (``service``). Both are removed at
the end; after a SIGKILL, by whoever meets them next.

On the start path: making an entry. Reading those of others is in ``listing``.
"""

from __future__ import annotations

import os

from xbuild.errors import NameTaken
from xbuild.sandbox import _unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.lifecycle import Enlist
    from xbuild.plan.steps import Plan

ENTRY, CONTROL, CONSOLE = ".entry", ".control", ".console"
_ATTEMPTS = 10000


def state_directory() -> str:
    """Return where this user's entries are: they vanish with the machine's or session's end."""
    uid = os.geteuid()
    if uid == 0:
        return "/run/xbuild"
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in (given, f"/run/user/{uid}"):
        if place.startswith("/") and os.access(place, os.W_OK | os.X_OK):
            return f"{place}/xbuild"
    return f"/tmp/xbuild-{uid}"


def open_state_directory(*, make: bool) -> int:
    """Return an O_PATH descriptor of the directory, to which its owner alone may write.

    Raises OSError: PermissionError where it is somebody else's.
    """
    path = state_directory()
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        if make:
            _make_directory(path)
        try:
            fd = os.open(path, flags)
            break
        except FileNotFoundError:
            if not make:
                raise  # else it went with the last of the others, just now
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(fd)
        raise PermissionError(1, "others may write to it", path)
    return fd


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return


class Entry:
    """This process's own entry. ``control`` listens; ``name`` is what became of the name."""

    def __init__(self, step: Enlist, plan: Plan) -> None:
        """Make it. Raises NameTaken, OSError."""
        while not self._make(step, plan):
            continue
        try:
            self.listen()
        except OSError:
            self.end(None)
            raise

    def _make(self, step: Enlist, plan: Plan) -> bool:
        """Return False where the directory went with the last of the others meanwhile."""
        self._directory, self._fd = open_state_directory(make=True), -1
        try:
            self._fd = os.open(
                ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._directory
            )
            _unix.flock(self._fd, _unix.LOCK_EX | _unix.LOCK_NB)
            os.write(self._fd, _describe(step, plan))
            self.name = self._claim(step)
        except (OSError, NameTaken):
            is_there = _is_there(self._directory)
            for fd in {self._directory, self._fd} - {-1}:
                os.close(fd)
            if is_there:
                raise
            return False
        return True

    def listen(self) -> None:
        """Listen at ``control``, for a process 1 that is given it. Raises OSError."""
        self._remove(self.name + CONTROL)  # of one that was killed, or of the boot before
        self.control = _unix.message_socket()
        _unix.listen_at(self.control, self.socket_path(CONTROL))

    def socket_path(self, suffix: str) -> str:
        """Return a path short enough for a socket's address, however deep the directory is."""
        return f"/proc/self/fd/{self._directory}/{self.name}{suffix}"

    def descriptors(self) -> tuple[int, int]:
        """Return what process 1 keeps: the lock on the entry, for as long as it lives; control."""
        return (self._fd, self.control)

    def end(self, status: int | None) -> None:
        """Remove it; those who wait read the exit status in the file that they have open."""
        if status is not None:
            os.write(self._fd, f"status={status}\n".encode())
        self.withdraw()
        os.close(self._fd)

    def withdraw(self) -> None:
        """List it no more: it ends, and still holds its lock. A second call does nothing."""
        if self._directory < 0:
            return
        for suffix in (CONTROL, CONSOLE, ENTRY):
            self._remove(self.name + suffix)
        os.close(self._directory)
        self._directory = -1
        try:
            os.rmdir(state_directory())
        except OSError:
            return  # others are listed

    def _claim(self, step: Enlist) -> str:
        source = f"/proc/self/fd/{self._fd}"
        for number in range(1, _ATTEMPTS):
            name = step.name if number == 1 else f"{step.name}-{number}"
            while True:
                try:
                    os.link(source, name + ENTRY, dst_dir_fd=self._directory, follow_symlinks=True)
                except FileExistsError:
                    if remove_stale(self._directory, name, is_patient=step.is_given):
                        continue
                    break
                return name
            if step.is_given:
                break
        raise NameTaken(
            f"A container named {step.name} is running already",
            "xbuild ps lists them; choose another --name",
        )

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._directory)
        except FileNotFoundError:
            return


def _is_there(directory: int) -> bool:
    """Tell whether the state directory still is the one of that descriptor.

    One that is being removed has no links any more, while its name may be seen still: rmdir(2).
    """
    held = os.fstat(directory)
    try:
        there = os.stat(state_directory(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return held.st_nlink > 0 and os.path.samestat(there, held)


def remove_stale(directory: int, name: str, *, is_patient: bool = False) -> bool:
    """Remove the entry of a container that is dead; False for one that lives.

    ``is_patient`` waits for the kernel to take one apart that was killed. Whoever removes one holds
    its lock, and makes sure that it still is what the name leads to.
    """
    try:
        fd = os.open(name + ENTRY, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return True
    try:
        if is_patient:
            from xbuild.sandbox.filelock import lock_descriptor  # off the start path

            lock_descriptor(fd, exclusive=True)
        else:
            _unix.flock(fd, _unix.LOCK_EX | _unix.LOCK_NB)
        there = os.stat(name + ENTRY, dir_fd=directory, follow_symlinks=False)
        if there.st_ino == os.fstat(fd).st_ino:
            for suffix in (CONTROL, CONSOLE, ENTRY):
                try:
                    os.unlink(name + suffix, dir_fd=directory)
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class Handover:
    """How process 1 gets the entry, which is made while it assembles the view."""

    def __init__(self) -> None:
        self._launchers, self._first = _unix.pair()

    def give(self, entry: Entry | None) -> None:
        """Let process 1 start the command, be it listed or not."""
        _unix.send(self._launchers, b"\0", () if entry is None else entry.descriptors())
        if entry is not None:
            os.close(entry.control)
        self.close()

    def take(self) -> tuple[int, int]:
        """Wait for it in process 1; returns the descriptors of its lock and of control, or -1.

        There is nothing to wait for when the launcher has died: process 1 dies with it.
        """
        _, descriptors = _unix.receive_patiently(self._first)
        self.close()
        return (descriptors[0], descriptors[1]) if descriptors else (-1, -1)

    def close(self) -> None:
        """Let go of both ends in this process; a second call does nothing."""
        for fd in {self._launchers, self._first} - {-1}:
            os.close(fd)
        self._launchers = self._first = -1


def _describe(step: Enlist, plan: Plan) -> bytes:
    pairs = [
        ("tree", step.tree),
        ("is_ephemeral", str(int(step.is_ephemeral))),
        ("has_console", str(int(step.has_console))),
        ("is_booted", str(int(step.is_booted))),
        *(("argv", word) for word in plan.command.argv if not plan.command.is_only_held),
    ]
    return b"".join(_line(key, value) for key, value in pairs)


def _line(key: str, value: str) -> bytes:
    plain = os.fsencode(value).replace(b"\\", rb"\\").replace(b"\n", rb"\n")
    return key.encode() + b"=" + plain + b"\n"
