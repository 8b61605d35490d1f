"""What is explained, by which line, and above all what is not."""

from __future__ import annotations

import pytest

from tests.provocations import RECORDED, Recording
from xbuild.binary.arch import arch_named
from xbuild.diagnosis.failure import Explanation, Failure, explain, last_lines
from xbuild.diagnosis.limits import TRAITS, known_limits, limit_named


def failure(
    output: str,
    status: int = 1,
    *,
    architecture: str = "arm64",
    version: str = "",
    traits: tuple[str, ...] = ("emulated",),
    tmpfs: tuple[str, ...] = ("/tmp", "/run"),
) -> Failure:
    return Failure(
        status,
        last_lines(output.encode()),
        arch_named(architecture),
        version or None,
        frozenset(traits),
        tmpfs,
        "/srv/my tree",
        "/opt/qemu-aarch64-static",
    )


def names(found: tuple[Explanation, ...]) -> list[str]:
    return [each.limit.name for each in found]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.limit)
def test_recorded_failures_are_explained(recorded: Recording) -> None:
    found = explain(
        failure(
            recorded.output,
            recorded.status,
            architecture=recorded.architecture,
            version=recorded.version,
            traits=recorded.traits,
        )
    )
    assert names(found)[:1] == [recorded.limit]
    assert found[0].evidence in recorded.output


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.limit)
def test_the_same_output_of_a_success_is_not(recorded: Recording) -> None:
    done = failure(recorded.output, 0, traits=("emulated", "32-bit", "one-id"))
    assert explain(done) == ()


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.limit)
@pytest.mark.parametrize(
    "quoted", ["build.log:12:{}", "> {}", "expected: {}", "  | {} |", "+ # {}"]
)
def test_quoted_output_is_not(recorded: Recording, quoted: str) -> None:
    """As grep, diff, a test's report or a shell's trace shows it."""
    lines = [quoted.format(line) for line in recorded.output.splitlines()]
    done = failure("\n".join(lines), 1, traits=("emulated", "32-bit", "one-id"))
    assert explain(done) == ()


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.limit)
def test_what_was_long_ago_is_not(recorded: Recording) -> None:
    later = "".join(f"compiling part {number}\n" for number in range(60))
    last = "a.c:1:1: error: expected expression\n"
    done = failure(recorded.output + later + last, 1, traits=("emulated", "32-bit", "one-id"))
    assert explain(done) == ()


ORDINARY = {
    "compile error": "a.c: In function 'main':\na.c:3:5: error: unknown type name 'foo'\n",
    "linker": "/usr/bin/ld: a.o: undefined reference to `f'\ncollect2: error: ld returned 1\n",
    "tests": "FAIL: test_parser\nFAILED (failures=1)\nmake: *** [Makefile:7: check] Error 1\n",
    "nothing": "",
    "no such file": "cat: /nonexistent: No such file or directory\n",
    "permission": "touch: cannot touch '/etc/x': Permission denied\n",
    "killed": "Killed\n",
    "aborted": "a.out: a.c:3: main: Assertion `0' failed.\nAborted\n",
    "invalid number": "dd: invalid number: '3900M': Value too large for defined data type\n",
    "invalid argument": "dd: failed to open '/x': Invalid argument\n",
    "mount": "mount: /mnt: mount failed: Operation not permitted.\n",
    "rust": "error[E0308]: mismatched types\nerror: could not compile `x` due to an error\n",
    "git": "fatal: unable to access 'https://a.example/': The requested URL returned error: 404\n",
    "network": "curl: (6) Could not resolve host: nope.example\n",
    "signed": "gpg: Can't check signature: No public key\n",
    "sudo": "sudo: a password is required\n",
    "disk": "tar: x: Cannot write: No space left on device\n",
    "read-only": "touch: cannot touch '/sys/x': Read-only file system\n",
}


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_failures_are_not(what: str) -> None:
    traits = ("emulated", "32-bit", "seccomp", "no-setuid")
    for status in (1, 2, 100, 127, 130, 134, 137, 143):
        assert explain(failure(ORDINARY[what], status, traits=traits)) == ()


def test_signal_alone_is_evidence_where_nothing_was_seen() -> None:
    (found,) = explain(failure("", 139, version="9.2.0"))
    assert (found.limit.name, found.evidence) == ("crash", "it was ended by SIGSEGV (status 139)")
    assert names(explain(failure("", 132))) == ["illegal-instruction"]
    assert explain(failure("", 139, traits=())) == ()


def test_line_of_qemu_goes_before_the_signal() -> None:
    line = "qemu: uncaught target signal 4 (Illegal instruction) - core dumped"
    (found,) = explain(failure(line, 132))
    assert found.evidence == line


def test_faults_of_the_very_version_come_along() -> None:
    (found,) = explain(failure("", 139, version="9.2.0"))
    assert [fault.issue for fault in found.faults] == [
        "https://github.com/tonistiigi/binfmt/issues/231"
    ]
    (found,) = explain(failure("", 139, version="10.0.13"))
    assert found.faults == ()


def test_last_evidence_leads() -> None:
    strace = "strace: ptrace(PTRACE_TRACEME, ...): Function not implemented"
    bwrap = "bwrap: Creating new namespace failed: Invalid argument"
    assert names(explain(failure(f"{strace}\n{bwrap}\n"))) == ["namespaces", "ptrace"]
    assert names(explain(failure(f"{bwrap}\n{strace}\n"))) == ["ptrace", "namespaces"]


@pytest.mark.parametrize(
    ("line", "traits", "limit"),
    [
        ("tar: x: Cannot write: No space left on device", ("ephemeral",), "ephemeral-full"),
        ("dd: writing to '/tmp/a': No space left on device", ("ephemeral",), "tmpfs-full"),
        ("dd: writing to '/tmp/a': No space left on device", (), "tmpfs-full"),
        ("dd: writing to '/home/tmp/a': No space left on device", (), None),
        ("dd: writing to '/tmpfiles': No space left on device", (), None),
    ],
)
def test_full_is_which_place(line: str, traits: tuple[str, ...], limit: str | None) -> None:
    assert names(explain(failure(line, traits=traits))) == ([limit] if limit else [])


def test_32_bit_limits_are_for_32_bits() -> None:
    line = "ls: reading directory '/x': Value too large for defined data type"
    assert names(explain(failure(line, traits=("emulated", "32-bit")))) == ["eoverflow"]
    assert explain(failure(line)) == ()


def test_attempt_names_the_tree_and_the_architecture() -> None:
    (found,) = explain(failure("", 132))
    assert "xbuild inspect '/srv/my tree'" in found.attempt
    (found,) = explain(failure("", 139))
    assert "xbuild setup --version 10 arm64" in found.attempt
    (found,) = explain(failure("qemu-aarch64: unable to find CPU model 'x'\n", 1))
    assert found.attempt.startswith("/opt/qemu-aarch64-static -cpu help")


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (b"\x1b[31mred\x1b[0m\r\n", ("red",)),
        (b"10%\r50%\r100%\nnext\n", ("100%", "next")),
        (b"\x1b]0;title\x07shell\n", ("shell",)),
        (b"\xff\xfe\n", ("\ufffd\ufffd",)),
        (b"x" * 600 + b"\nshort\n", ("short",)),
        (b"\n\n", ()),
    ],
)
def test_lines_are_read_as_a_person_sees_them(output: bytes, lines: tuple[str, ...]) -> None:
    assert last_lines(output) == lines


# What looks like a limit and is none, in a run to which the limit would apply.
NEAR_MISSES = {
    "crash": "qemu: uncaught target signal 6 (Aborted) - core dumped",
    "assertion": "a.out: a.c:3: main: Assertion `0' failed.",
    "illegal-instruction": "Illegal instruction sets are listed in chapter 4",
    "cpu-unknown": "error: unable to find CPU model 'x' in models.xml",
    "ptrace": "gdb: ptrace: Operation not permitted.",
    "clone3": "a.out: clone3: Operation not permitted",
    "namespaces": "unshare: unshare failed: Operation not permitted",
    "pid-namespace": "qemu: qemu_thread_create: Resource temporarily unavailable",
    "threads": "qemu: qemu_thread_create: Invalid argument",
    "eoverflow": "dd: invalid number: '3900M': Value too large for defined data type",
    "address-space": "qemu-arm: warning: Unable to reserve anything",
    "32-bit-memory": "a.c:1:1: warning: out of memory allocating is not handled",
    "semop": "semop(1): encountered an error: Invalid argument",
    "landlock": "warning: the sandbox of this program uses landlock",
    "apt-sandbox": "E: Unable to locate package no-such",
    "setuid": "sudo: a password is required",
    "gpg-agent": "gpg: signing failed: Bad passphrase",
    "netlink": "Error: Operation not supported by this remote",
    "go-threads": "fatal error: all goroutines are asleep - deadlock!",
    "aio": "io_setup: Resource temporarily unavailable",
    "mknod": "mknod: /tmp/x: File exists",
    "one-id": "chown: invalid user: 'nobody-here'",
    "ephemeral-full": "dd: writing to '/tmp/a': No space left on device",
    "tmpfs-full": "dd: writing to '/home/a': No space left on device",
    "scaffold": "mount: /x: WARNING: source write-protected, mounted read-only.",
    "seccomp": "date: invalid date '2020-13-01'",
    "no-network": "curl: (7) Failed to connect to localhost port 80: Connection refused",
    "cpuinfo": "RuntimeError: this module needs numpy",
    "exec-format": "bash: line 1: ./configure: Permission denied",
    "required-file": "sh: 1: ./tool: not found",
    "no-loader": "qemu-aarch64: Could not open '/x': Permission denied",
}
ALL_TRAITS = tuple(trait for trait in TRAITS if trait not in ("on-tmpfs", "read-only"))


@pytest.mark.parametrize("limit", [each.name for each in known_limits() if each.lines])
def test_what_merely_looks_like_a_limit_is_not_taken_for_it(limit: str) -> None:
    found = explain(failure(NEAR_MISSES[limit], architecture="armhf", traits=ALL_TRAITS))
    assert limit not in names(found)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.limit)
def test_a_limit_is_none_where_it_does_not_apply(recorded: Recording) -> None:
    needs = limit_named(recorded.limit).needs
    for trait in needs:
        traits = tuple(each for each in ALL_TRAITS if each != trait)
        done = failure(recorded.output, recorded.status, version=recorded.version, traits=traits)
        assert recorded.limit not in names(explain(done))
