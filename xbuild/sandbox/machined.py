"""Being listed by systemd-machined while a container lives, through busctl(1).

What machined knows of is the container's process 1, that is the guest's init. Loaded only where a
registration was asked for.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from xbuild.errors import SetupFailed

if TYPE_CHECKING:
    from xbuild.plan.lifecycle import RegisterMachine

_MACHINED = ("org.freedesktop.machine1", "/org/freedesktop/machine1")
_MANAGER = "org.freedesktop.machine1.Manager"
_PATIENCE_S = 10.0
_PAUSE_S = 0.02


class Registration:
    """A block in which a container is registered, if that is to be had."""

    def __init__(self, step: RegisterMachine, name: str, pid: int) -> None:
        """Register ``name``, whose process 1 is below process ``pid``, in the block."""
        self._step = step
        self._name = name
        self._pid = pid
        self._is_listed = False

    def __enter__(self) -> Registration:
        """Do so. Raises SetupFailed where it is required and cannot be had."""
        number = [self._step.machine_id[at : at + 2] for at in range(0, 32, 2)]
        identity = [str(int(each, 16)) for each in number] if self._step.machine_id else []
        leader = _guest_init_below(self._pid)
        if leader == 0:
            return self  # it has failed, which others say
        said = self._call(
            *("RegisterMachine", "sayssus"),
            *(self._name, str(len(identity)), *identity),
            *("xbuild", "container", str(leader), self._step.tree),
        )
        if said is not None and self._step.is_required:
            raise SetupFailed(
                f"Cannot register with systemd-machined: {said}", "leave --register out"
            )
        self._is_listed = said is None
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._is_listed:
            self._call("UnregisterMachine", "s", self._name)

    def _call(self, method: str, *arguments: str) -> str | None:
        """Call a method; returns why it failed, None where it did not."""
        step = self._step
        command = [step.program, f"--address={step.address}", "call", *_MACHINED, _MANAGER]
        try:
            done = subprocess.run(
                [*command, method, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "nobody answers"
        return None if done.returncode == 0 else done.stderr.strip() or "busctl failed"


def _guest_init_below(pid: int) -> int:
    """Return the process 1 of the innermost PID namespace below a process; 0 where it has ended."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        for child in _descendants(pid):
            if _number_inside(child) == (3, 1):
                return child
        if not os.path.exists(f"/proc/{pid}/ns/pid"):
            return 0
        time.sleep(_PAUSE_S)
    return 0


def _descendants(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return children + [each for child in children for each in _descendants(child)]


def _number_inside(pid: int) -> tuple[int, int]:
    """Return how many PID namespaces, from ours on, a process is in, and its innermost number."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next(line for line in file if line.startswith("NSpid:"))
    except (OSError, StopIteration):
        return (0, 0)
    numbers = line.split()[1:]
    return len(numbers), int(numbers[-1])
