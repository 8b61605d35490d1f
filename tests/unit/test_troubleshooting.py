"""docs/troubleshooting.md: the messages that it explains are ones that the program gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import CHECKOUT

_PAGE = (Path(CHECKOUT) / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
_TABLE = re.compile(r"^\| the message has \|.*\n\|.*\n(?P<rows>(?:\|.*\n)+)", re.M)


def _messages() -> list[str]:
    rows = [row for table in _TABLE.finditer(_PAGE) for row in table["rows"].splitlines()]
    return [piece for row in rows for piece in re.findall("`([^`]+)`", row.split(" | ")[0])]


@pytest.fixture(scope="module")
def sources() -> str:
    """All that the program could say: its source, strings that go on in the next line joined."""
    files = sorted((Path(CHECKOUT) / "xbuild").rglob("*.py"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("message", _messages())
def test_message_is_one_of_the_programs(message: str, sources: str) -> None:
    assert message in sources


def test_table_of_known_limits_is_the_data_files() -> None:
    run = [sys.executable, str(Path(CHECKOUT) / "script" / "known-limits"), "--check"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert _PAGE.count(" | <https://") > 20


def test_there_are_messages() -> None:
    assert len(_messages()) > 15
