"""``--events``: a run's life in lines of JSON, and consumers who are slow, gone or picky."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.conftest import OpenTerminal
from tests.documented_json import check_event
from tests.patience import PATIENCE_S
from tests.runs import Runner
from xbuild.sandbox.events import SCHEMA

MANY = 1_000_000

Event = dict[str, Any]  # Any: what JSON holds


def read_events(text: str | bytes) -> list[Event]:
    """Parse a stream, and check that each event is as docs/json.md has it."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        check_event(event)
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "exit"
    return events


def output_of(events: list[Event], stream: str) -> bytes:
    """Put a stream together again."""
    pieces = [e for e in events if e["event"] == "output" and e["stream"] == stream]
    return b"".join(
        e["text"].encode() if e["base64"] is None else base64.b64decode(e["base64"]) for e in pieces
    )


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def words(runner: Runner, events: str, script: str, *options: str) -> tuple[str, ...]:
    return ("--events", events, *options, runner.tree("arm64"), "--", "sh", "-c", script)


def test_the_life_of_a_run(runner: Runner) -> None:
    script = "echo out; echo err >&2; exit 7"
    done = runner.run("--json", runner.tree("arm64"), "--", "sh", "-c", script)
    events = read_events(done.stdout)
    assert done.returncode == 7
    assert events[0]["schema"] == SCHEMA
    assert events[0]["target"] == runner.tree("arm64")
    assert events[0]["argv"] == ["sh", "-c", script]
    assert [e["name"] for e in of_kind(events, "step")] == ["plan", "set-up", "command", "end"]
    assert output_of(events, "stdout") == b"out\n"
    assert output_of(events, "stderr") == b"err\n"
    assert events[-2]["event"] == "resources"
    assert events[-1]["status"] == 7
    assert [events[-1][key] for key in ("signal", "error", "message", "hint")] == [None] * 4
    times = [event["at_s"] for event in events]
    assert times == sorted(times)


def test_a_file_beside_the_output(runner: Runner) -> None:
    path = os.path.join(runner.user.home, "events.jsonl")
    done = runner.run(*words(runner, path, "echo hello"))
    assert done.stdout == "hello\n"
    with open(path, encoding="ascii") as file:
        assert output_of(read_events(file.read()), "stdout") == b"hello\n"


def test_a_descriptor_which_the_command_does_not_get(root: Runner) -> None:
    line = shlex.join(root.argv(*words(root, "7", "echo hello >&2; ls /proc/self/fd")))
    done = root.user.run(["bash", "-c", f"exec 7>&1; {line} >/dev/null 2>/dev/null"])
    events = read_events(done.stdout)
    assert output_of(events, "stdout").split() == [b"0", b"1", b"2", b"3"]
    assert output_of(events, "stderr") == b"hello\n"


def test_streams_in_one_file_are_told_as_one(root: Runner) -> None:
    line = shlex.join(root.argv(*words(root, "7", "echo a; echo b >&2; echo c")))
    done = root.user.run(["bash", "-c", f"{{ {line} 7>&3 2>&1 | cat; }} 3>&1 >/dev/null"])
    assert output_of(read_events(done.stdout), "both") == b"a\nb\nc\n"


def test_what_is_no_text(root: Runner) -> None:
    script = r"printf '\303'; sleep 0.3; printf '\251 \377\0'; sleep 0.3; printf 'end\342\202'"
    events = read_events(root.output(*words(root, "-", script)))
    assert output_of(events, "stdout") == b"\xc3\xa9 \xff\0end\xe2\x82"
    texts = "".join(event["text"] for event in of_kind(events, "output"))
    assert texts.encode() == "é \ufffd\0end\ufffd".encode()


def test_a_million_lines_and_a_huge_one(root: Runner) -> None:
    done = root.run(*words(root, "-", f"seq {MANY}; head -c 3000000 /dev/zero | tr '\\0' x"))
    lines = output_of(read_events(done.stdout), "stdout").split(b"\n")
    assert len(lines) == MANY + 1
    assert lines[MANY - 1] == str(MANY).encode()
    assert lines[MANY] == b"x" * 3_000_000


def test_a_consumer_who_leaves_does_not_hurt_the_build(root: Runner) -> None:
    script = "seq 300000; echo done >&2; exit 5"
    reading, writing = os.pipe()
    argv = words(root, str(writing), script)
    with root.spawn(
        *argv, pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        assert os.read(reading, 10)
        os.close(reading)
        assert process.wait(PATIENCE_S) == 5
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
    assert said[0] == "done"
    assert said[1:] == ["note: the run went on without its events, which nobody takes: Broken pipe"]


def test_events_on_an_output_whose_reader_leaves(root: Runner) -> None:
    line = shlex.join(root.argv(*words(root, "-", "seq 300000; echo x; exit 5")))
    done = root.user.run(["bash", "-c", f"{line} | head -1; exit ${{PIPESTATUS[0]}}"])
    assert done.returncode == 5
    assert "went on without its events" in done.stderr


def test_a_slow_consumer_holds_the_command_back_and_loses_nothing(root: Runner) -> None:
    reading, writing = os.pipe()
    argv = words(root, str(writing), "seq 300000; echo written >&2")
    with root.spawn(
        *argv, pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        assert process.stderr is not None
        assert not select.select([process.stderr], (), (), 2)[0]
        with open(reading, "rb") as pipe:
            events = read_events(pipe.read())
        assert output_of(events, "stdout").split()[-1] == b"300000"


def test_a_consumer_who_never_reads_does_not_keep_a_run_that_is_out_of_time(root: Runner) -> None:
    reading, writing = os.pipe()
    argv = words(root, str(writing), "seq 300000", "--timeout", "1", "--kill-timeout", "1")
    with root.spawn(*argv, pass_fds=(writing,), stderr=subprocess.PIPE) as process:
        os.close(writing)
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 124
    os.close(reading)


def test_hang(runner: Runner) -> None:
    done = runner.run(*words(runner, "-", "echo x; sleep 1234", "--idle-timeout", "2"))
    events = read_events(done.stdout)
    (hang,) = of_kind(events, "hang")
    assert hang["why"] == "nothing has moved for 2 s (--idle-timeout)"
    assert ["sleep", "1234"] in [process["argv"] for process in hang["processes"]]
    assert done.returncode == 124
    assert (events[-1]["status"], events[-1]["error"]) == (124, "TimedOut")


def test_words_without_end_are_cut_off(root: Runner) -> None:
    """A guest's processes are as many, and have as many words, as it likes."""
    script = 'sleep 1234 $(head -c 100000 /dev/zero | tr "\\0" 1)'
    done = root.run(*words(root, "-", f"{script}; :", "--idle-timeout", "2"))
    (hang,) = of_kind(read_events(done.stdout), "hang")
    (argv,) = [each["argv"] for each in hang["processes"] if each["argv"][:1] == ["sleep"]]
    assert argv[1] == "1234"
    assert 1000 < len(argv[2]) < 4096


def test_ended_by_a_signal(root: Runner) -> None:
    done = root.run(*words(root, "-", "kill -SEGV $$"))
    assert read_events(done.stdout)[-1]["signal"] == signal.SIGSEGV


FAILURES = {
    "command": (("tree", "nothing-there"), 127, "CommandNotFound"),
    "tree": (("/nothing-there",), 125, "TargetNotFound"),
    "directory": (("--chdir", "/nothing-there", "tree", "true"), 125, "SetupFailed"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_failures_of_xbuild(root: Runner, what: str) -> None:
    said, status, error = FAILURES[what]
    argv = [root.tree("arm64") if word == "tree" else word for word in said]
    done = root.run("--events", "-", *argv)
    last = read_events(done.stdout)[-1]
    assert (done.returncode, last["status"], last["error"]) == (status, status, error)
    assert f"xbuild: {last['message']}" in done.stderr


def test_resources(root: Runner) -> None:
    script = "dd if=/dev/zero of=/var/tmp/x bs=1M count=20 2>/dev/null; i=0;"
    script += " while [ $i -lt 20000 ]; do i=$((i+1)); done"
    began = time.monotonic()
    done = root.run(*words(root, "-", script, "--tmpfs", "/var/tmp"))
    took = time.monotonic() - began
    (used,) = of_kind(read_events(done.stdout), "resources")
    assert 0 < used["wall_s"] <= took
    assert 0 < used["user_s"] + used["system_s"] <= took * os.cpu_count()  # type: ignore[operator]
    assert used["written"] >= 20 << 20
    assert used["peak_of"] == "process"
    assert 1 << 20 < used["peak_memory"] < 1 << 32


def test_memory_of_all_processes_where_it_is_limited(root: Runner) -> None:
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=30 2>/dev/null"
    (used,) = of_kind(
        read_events(root.output(*words(root, "-", script, "--memory", "200M"))), "resources"
    )
    assert used["peak_of"] == "container"
    assert 30 << 20 < used["peak_memory"] <= 200 << 20


def test_disk_writes(runner: Runner) -> None:
    script = "dd if=/dev/zero of=/out/x bs=1M count=8 2>/dev/null; sync"
    done = runner.run(*words(runner, "-", script, "--bind", f"{runner.user.home}:/out"))
    (used,) = of_kind(read_events(done.stdout), "resources")
    assert used["stored"] >= 8 << 20


def test_on_a_terminal(root: Runner, open_terminal: OpenTerminal) -> None:
    path = os.path.join(root.user.home, "terminal.jsonl")
    command = root.argv(*words(root, path, "[ -t 1 ] && echo tty; read x; echo got $x"))
    session = open_terminal(command, user=root.user)
    session.expect_exact("tty\r\n")
    session.send("word\r")
    session.expect_exact("got word\r\n")
    session.read()
    with open(path, encoding="ascii") as file:
        shown = output_of(read_events(file.read()), "terminal")
    assert shown == b"tty\r\nword\r\ngot word\r\n"


def test_a_terminal_and_a_pipe(root: Runner, open_terminal: OpenTerminal) -> None:
    home = root.user.home
    argv = words(root, f"{home}/mixed.jsonl", "seq 50000 >&2; read x; echo got $x")
    line = f"{shlex.join(root.argv(*argv))} 2>{home}/errors"
    session = open_terminal(["/bin/sh", "-c", line], user=root.user)
    session.send("word\r")
    session.expect_exact("got word\r\n")
    session.read()
    with open(f"{home}/mixed.jsonl", encoding="ascii") as file:
        events = read_events(file.read())
    with open(f"{home}/errors", "rb") as errors:
        assert errors.read() == output_of(events, "stderr")
    assert output_of(events, "stderr").split()[-1] == b"50000"
    assert b"got word" in output_of(events, "terminal")


def test_certificate_and_events(root: Runner) -> None:
    done = root.run(*words(root, "-", "true", "--certify"))
    assert read_events(done.stdout)[-1]["status"] == 0
    assert "free" in done.stderr


BAD = {
    "descriptor 99": ("--events", "99"),
    "there is no other --events": ("--events", "x", "--json"),
    "No such file or directory": ("--events", "/no/such/place"),
    "Is a directory": ("--events", "/"),
    "open for reading": ("--events", "0"),
    "--events needs a value": ("--events",),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_places_are_refused(root: Runner, said: str) -> None:
    arguments = BAD[said]
    tail = [] if said.endswith("value") else [root.tree("arm64"), "true"]
    done = root.run(*arguments, *tail, input="")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_named_pipe_waits_for_its_reader(root: Runner) -> None:
    place = os.path.join(root.user.home, "events.pipe")
    os.mkfifo(place)
    with root.spawn(*words(root, place, "echo x; exit 5"), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"note: waiting for somebody to read {place}")
        with open(place, encoding="ascii") as pipe:
            events = read_events(pipe.read())
        assert (process.wait(PATIENCE_S), events[-1]["status"]) == (5, 5)


def test_a_named_pipe_that_nobody_reads_is_no_hang(root: Runner) -> None:
    place = os.path.join(root.user.home, "unread.pipe")
    os.mkfifo(place)
    done = root.run(*words(root, place, "echo it ran"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Nobody reads the events of the named pipe {place}" in done.stderr
    assert "hint: start the reader first" in done.stderr


def test_a_full_disk(root: Runner) -> None:
    done = root.run(*words(root, "/dev/full", "echo x; exit 5"))
    assert (done.returncode, done.stdout) == (5, "x\n")
    assert "which nobody takes: No space left on device" in done.stderr
