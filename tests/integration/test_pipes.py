"""Files that are named pipes: read where somebody writes, and never waited for without end."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.patience import PATIENCE_S
from tests.runs import Runner

READERS: tuple[tuple[str, ...], ...] = (
    ("run", "--env-file", "PIPE", "TREE", "true"),
    ("run", "--profile", "PIPE", "TREE", "true"),
    ("run", "--jobs-from=PIPE", "TREE", "true"),
    ("profile", "show", "PIPE"),
    ("ci", "matrix", "--arch", "arm64", "--file", "PIPE"),
    ("import-nspawn", "PIPE"),
)


def test_a_pipe_without_a_writer_is_refused(root: Runner) -> None:
    pipe = os.path.join(root.user.home, "without-a-writer")
    os.mkfifo(pipe)
    tree = root.tree("arm64")
    running = []
    for words in READERS:
        argv = [word.replace("PIPE", pipe).replace("TREE", tree) for word in words]
        running.append(
            subprocess.Popen(
                root.user.argv([*root.xbuild, *argv]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=root.user.environment(),
            )
        )
    for words, process in zip(READERS, running, strict=True):
        shown, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, shown) == (2, ""), words
        assert "nobody has written to it for 10 s" in said, words
        assert "\nhint: " in said, words


@pytest.mark.parametrize(
    ("words", "content", "shown"),
    [
        (("run", "--env-file", "PIPE", "TREE", "sh", "-c", "echo $A"), "A=b", "b"),
        (("ci", "matrix", "--arch", "arm64", "--file", "PIPE"), "nano", '"packages": "nano"'),
        (("import-nspawn", "PIPE"), "[Exec]\nHostname=x", 'hostname = "x"'),
    ],
)
def test_a_pipe_is_read_to_its_end(
    root: Runner, words: tuple[str, ...], content: str, shown: str
) -> None:
    pipe = os.path.join(root.user.home, f"with-a-writer-{words[0]}")
    os.mkfifo(pipe)
    argv = [word.replace("PIPE", pipe).replace("TREE", root.tree("arm64")) for word in words]
    with subprocess.Popen(["sh", "-c", f"printf '%s\\n' \"$1\" >{pipe}", "sh", content]):
        done = root.command(*argv)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_an_archive_in_a_pipe_is_refused(root: Runner) -> None:
    pipe = os.path.join(root.user.home, "archive")
    os.mkfifo(pipe)
    done = root.command("create", f"{root.user.home}/never", "--from", pipe)
    assert (done.returncode, done.stdout) == (2, "")
    assert "an archive is read twice" in done.stderr
