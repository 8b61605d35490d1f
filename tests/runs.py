"""``xbuild run`` as the kinds of people who start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Literal

from tests.users import User
from xbuild.record import HostPath, Record

Kind = Literal["root", "range", "plain"]
KINDS: tuple[Kind, ...] = ("root", "range", "plain")
"""Real root, an ordinary user with subordinate ids, and one with a single id."""


class Runner(Record):
    """``xbuild run`` as one ``user``; ``tree(architecture)`` is a shared tree of that user's."""

    kind: Kind
    user: User
    xbuild: tuple[str, ...]
    tree: Callable[[str], HostPath]

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line of a run."""
        return [*self.xbuild, "run", *arguments]

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run another command of xbuild's than run; ``options`` are User.run's."""
        return self.user.run([*self.xbuild, *arguments], **options)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run and return what came of it; ``options`` are User.run's."""
        return self.user.run(self.argv(*arguments), **options)

    def run_bytes(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run, with output that need not be text."""
        done: Any = self.user.run(self.argv(*arguments), text=False, **options)  # Any: of bytes
        assert isinstance(done.stdout, bytes)
        return done  # type: ignore[no-any-return]  # checked just above

    def output(self, *arguments: str, **options: Any) -> str:
        """Run what must succeed and return its standard output."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert isinstance(done.stdout, str)
        return done.stdout

    def shell(self, architecture: str, script: str, *options: str, **settings: Any) -> str:
        """Return what a shell script prints in a shared tree; any command of it may not fail."""
        tree = self.tree(architecture)
        return self.output(*options, tree, "--", "/bin/sh", "-ec", script, **settings)

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a run; standard output is a pipe unless ``options`` say otherwise."""
        settings: dict[str, Any] = {  # Any: what subprocess.Popen takes
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "text": True,
            "cwd": self.user.home,
            "env": self.user.environment(),
        } | options
        return subprocess.Popen(self.user.argv(self.argv(*arguments)), **settings)


@contextlib.contextmanager
def joined(runner: Runner, name: str, script: str) -> Iterator[subprocess.Popen[str]]:
    """Have a shell script join the container ``name``, and say ``up`` first."""
    with subprocess.Popen(
        runner.user.argv([*runner.xbuild, "exec", name, "sh", "-c", script]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=runner.user.environment(),
        cwd=runner.user.home,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process


def notes(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a run had to say beforehand."""
    return [line[6:] for line in done.stderr.splitlines() if line.startswith("note: ")]


def write_program(path: str | os.PathLike[str], content: bytes | str, mode: int = 0o755) -> None:
    """Write a file into a tree, with the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(path, mode)
