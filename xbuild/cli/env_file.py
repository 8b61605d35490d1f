"""Files of variables, for ``--env-file``: lines NAME=VALUE. Loaded where one is named."""

from __future__ import annotations

from xbuild.errors import UsageError
from xbuild.pipes import with_patience


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
        with open(path, encoding="utf-8", errors="surrogateescape", opener=with_patience) as file:
            return file.read()
    except OSError as error:
        raise UsageError(
            f"Cannot read the environment file {path}: {error.strerror}",
            "name a file of lines NAME=VALUE that you may read",
        ) from error
