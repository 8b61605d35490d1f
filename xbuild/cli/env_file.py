"""Files of variables, for ``--env-file``: lines NAME=VALUE. Loaded where one is named."""

from __future__ import annotations

import os
import select
import stat

from xbuild.errors import UsageError

_PATIENCE_S = 10.0


def read_env_file(path: str) -> list[tuple[str, str]]:
    """Read lines NAME=VALUE; blank ones and those that begin with # are passed over.

    A pipe is read to its end, if somebody writes to it. Raises UsageError.
    """
    pairs = []
    for number, line in enumerate(_content(path).split("\n"), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or "\0" in text:
            raise UsageError(
                f"{path}:{number}: not NAME=VALUE: {text!r}",
                "a line is NAME=VALUE, blank, or begins with #",
            )
        pairs.append((name.strip(), value))
    return pairs


def _content(path: str) -> str:
    try:
        # Opened for reading alone, a named pipe would wait for a writer without end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                _await_writer(fd, path)
            os.set_blocking(fd, True)
            return file.read()
    except OSError as error:
        raise UsageError(
            f"Cannot read the environment file {path}: {error.strerror}",
            "name a file of lines NAME=VALUE that you may read",
        ) from error


def _await_writer(fd: int, path: str) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(_PATIENCE_S * 1000):
        raise UsageError(
            f"Nobody writes to the environment file {path}, a pipe: waited {_PATIENCE_S:.0f} s",
            "start its writer first, or name a file",
        )
