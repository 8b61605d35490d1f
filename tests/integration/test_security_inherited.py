"""What a guest is handed at its start: device nodes, descriptors, keys, environment, programs."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Callable

import pytest

from tests.native_guest import PYTHON, NativeGuest, fill_native_tree
from tests.runs import Runner, write_program
from tests.users import User
from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import find_interpreter
from xbuild.record import HostPath

WITH_AND_WITHOUT_OWN_IDS = pytest.mark.parametrize(
    "options", [(), ("--private-users=identity",)], ids=["shifted", "identity"]
)
NODES = ("null", "zero", "full", "random", "urandom", "tty")

LEAK_THEN = """
import os, sys
fd = os.open("/", os.O_RDONLY)
for number in (*range(4, 10), 200, 900):
    os.dup2(fd, number)
os.set_inheritable(fd, True)
os.execv(sys.argv[1], sys.argv[1:])
"""

KEYS = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
JOIN_SESSION_KEYRING, SEARCH, SESSION = 1, 10, ctypes.c_long(-3)
"""
JOIN_WITH_A_KEY_THEN = f"""{KEYS}
libc.syscall(KEYCTL, JOIN_SESSION_KEYRING, None)
if libc.syscall(ADD_KEY, b"user", b"xbuild-secret", b"text", 4, SESSION) < 0:
    sys.exit("cannot add a key: " + errno.errorcode[ctypes.get_errno()])
os.execv(sys.argv[1], sys.argv[1:])
"""
FIND_THE_KEY = f"""{KEYS}
print(libc.syscall(KEYCTL, SEARCH, SESSION, b"user", b"xbuild-secret", 0) > 0)
"""


def host_nodes() -> list[tuple[int, int, int]]:
    statuses = [os.stat(f"/dev/{name}") for name in NODES]
    return [(stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for s in statuses]


def test_host_nodes_stay_as_they_were(runner: Runner) -> None:
    before = host_nodes()
    names = " ".join(f"/dev/{name}" for name in NODES)
    changes = "chmod 620 $i; chown 0:5 $i; touch $i; mv $i $i.old; rm -f $i"
    runner.shell("arm64", f"for i in {names}; do {changes}; done 2>/dev/null || true")
    assert host_nodes() == before


@WITH_AND_WITHOUT_OWN_IDS
def test_root_has_nodes_of_its_own(root: Runner, options: tuple[str, ...]) -> None:
    before = host_nodes()
    script = "chmod 620 /dev/null; chown 1:5 /dev/null; stat -c %a:%u:%g /dev/null; rm /dev/zero"
    assert root.shell("arm64", script, *options) == "620:1:5\n"
    assert host_nodes() == before


@WITH_AND_WITHOUT_OWN_IDS
@pytest.mark.parametrize("name", ["null", "zero", "full", "urandom"])
def test_node_given_as_a_descriptor_stays_as_it_was(
    root: Runner, options: tuple[str, ...], name: str
) -> None:
    """The regression: what a guest did to its standard input made the host's /dev/null 0620."""
    before = host_nodes()
    script = "for i in 0 1 2; do chmod 620 /proc/self/fd/$i; chown 0:5 /proc/self/fd/$i; done"
    argv = root.argv(*options, root.tree("arm64"), "--", "sh", "-c", script)
    with open(f"/dev/{name}", "r+b", buffering=0) as node:
        subprocess.run(argv, stdin=node, stdout=node, stderr=node, check=False)
    assert host_nodes() == before


def test_bound_device_can_be_used_and_not_changed(runner: Runner) -> None:
    before = host_nodes()
    script = "for i in 'chmod 620' 'chown 0:5' 'rm -f'; do $i /run/null && echo $i; done 2>&-;"
    script += " echo text >/run/null; cat /run/null; echo on"
    assert runner.shell("arm64", f"set +e; {script}", "--bind=/dev/null:/run/null") == "on\n"
    assert host_nodes() == before


@pytest.mark.parametrize("on_terminal", [False, True], ids=["pipe", "terminal"])
def test_only_standard_descriptors_are_inherited(runner: Runner, on_terminal: bool) -> None:
    argv = runner.argv(runner.tree("arm64"), "--", "ls", "/proc/self/fd")
    command = [PYTHON, "-I", "-c", LEAK_THEN, *argv]
    if on_terminal:
        command = ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"]
    done = runner.user.run(command)
    assert done.returncode == 0, done.stderr
    # The fourth is the directory that ls reads. script(1) types an end-of-file mark of its own.
    listed = done.stdout.replace("^@", "").split()
    assert listed[-4:] == ["0", "1", "2", "3"]
    assert not set(listed) & {"4", "5", "200", "900"}


def test_environment_is_not_inherited(runner: Runner) -> None:
    secrets = {"SECRET": "x", "PYTHONPATH": "/tmp", "LD_LIBRARY_PATH": "/tmp", "BASH_ENV": "/tmp"}
    environment = runner.user.environment(**secrets)
    output = runner.output(runner.tree("arm64"), "--", "env", env=environment)
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert names == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "container"}


def test_session_keyring_is_not_inherited(
    runner: Runner, new_tree: Callable[[User], HostPath]
) -> None:
    guest = NativeGuest(runner.user, runner.xbuild, new_tree(runner.user))
    fill_native_tree(guest.tree, guest.user)
    ask = ["-I", "-c", FIND_THE_KEY]
    outside = runner.user.run([PYTHON, "-I", "-c", JOIN_WITH_A_KEY_THEN, PYTHON, *ask])
    if outside.returncode:
        assert "ENOSYS" in outside.stderr  # a kernel without keys has none to pass on
        return
    assert outside.stdout == "True\n"
    argv = guest.argv(PYTHON, *ask)
    inside = runner.user.run([PYTHON, "-I", "-c", JOIN_WITH_A_KEY_THEN, *argv])
    assert inside.stdout == "False\n", inside.stderr


@WITH_AND_WITHOUT_OWN_IDS
def test_interpreter_stays_as_it_was(root: Runner, options: tuple[str, ...]) -> None:
    """/proc/PID/exe of an emulated program is the interpreter, which is the host's."""
    path = find_interpreter(arch_named("aarch64")).path
    before = os.stat(path)
    script = "set +e; sleep 5 & sleep 0.2; for i in /proc/$!/exe /run/xbuild/*; do chmod 4755 $i;"
    script += " chown 1:1 $i; echo text >>$i; done 2>/dev/null; true"
    root.shell("arm64", script, *options)
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_size) == (
        before.st_mode,
        before.st_uid,
        before.st_size,
    )
    assert after.st_ctime_ns == before.st_ctime_ns


def test_registry_of_the_host_is_hidden_from_its_own_ids(
    root: Runner, new_tree: Callable[[User], HostPath]
) -> None:
    """By an inherited entry with flag F, the host's interpreter would be within reach."""
    tree = new_tree(root.user)
    fill_native_tree(tree, root.user)
    assert "  binfmt " in root.output("--private-users=identity", "--dry-run", tree, "--", "true")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/link", "Cannot execute /link: "),
        ("/script", "Cannot execute /proc/self/exe: "),
        ("/script-of-script", "Cannot execute /proc/self/exe: "),
        ("/thread", "Cannot execute /thread: "),
    ],
)
def test_program_of_the_host_is_not_started(
    runner: Runner,
    new_tree: Callable[[User], HostPath],
    command: str,
    reason: str,
) -> None:
    """Until exec, /proc/self/exe is the Python that runs xbuild (CVE-2019-5736)."""
    tree = new_tree(runner.user)
    for name in ("dev", "proc", "run", "sys", "tmp"):
        os.mkdir(f"{tree}/{name}")
    with open(os.path.realpath(PYTHON), "rb") as program:
        write_program(f"{tree}/bin/program", program.read(64))
    os.symlink("/proc/self/exe", f"{tree}/link")
    os.symlink("/proc/thread-self/../../exe", f"{tree}/thread")
    write_program(f"{tree}/script", "#!  /proc/self/exe -c\n")
    write_program(f"{tree}/script-of-script", "#!/script\n")
    done = runner.run(tree, "--", command)
    assert done.returncode == 126, done.stderr
    assert reason in done.stderr
