"""A hostile tree: its links lead nowhere outside, and nothing of xbuild's is looked up in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.capability import require
from tests.installation import CHECKOUT
from tests.runs import Runner, write_program
from tests.trees import tree_hash
from tests.users import User
from xbuild.binary.arch import host_arch
from xbuild.binary.write import tiny_program
from xbuild.record import HostPath

API = ("dev", "proc", "run", "sys", "tmp")
GREETING = "the program ran\n"
SECRET = "xbuild-secret"
SLOW = "keyctl,open_tree"
# What Python or its libraries might look for when something unforeseen happens.
PLANTED = (
    *("warnings", "site", "sitecustomize", "usercustomize", "traceback", "linecache", "io"),
    *("encodings", "codecs", "os", "signal", "struct", "marshal", "ctypes", "locale", "errno"),
)


@pytest.fixture
def small_tree(new_tree: Callable[[User], HostPath]) -> Callable[[User], HostPath]:
    """A tree of one static program of the host's architecture, which greets."""

    def make(user: User) -> HostPath:
        tree = new_tree(user)
        for name in (*API, "etc", "bin", "mnt"):
            os.mkdir(f"{tree}/{name}")
        for name in ("etc/hosts", "etc/resolv.conf"):
            write_program(f"{tree}/{name}", "")
        write_program(f"{tree}/bin/greet", tiny_program(host_arch(), GREETING.encode()))
        give_to(user, tree)
        return tree

    return make


@pytest.fixture
def outside(new_tree: Callable[[User], HostPath]) -> Iterator[Callable[[User], HostPath]]:
    """A directory beside the tree, of the same user's, which must stay as it is."""
    made: dict[HostPath, str] = {}

    def make(user: User) -> HostPath:
        directory = new_tree(user)
        for name in ("pts", "shm", "xbuild", "lock", "etc", "sys"):
            os.mkdir(f"{directory}/{name}")
        write_program(f"{directory}/passwd", f"{SECRET}:x:0:0::/:/bin/greet\n")
        write_program(f"{directory}/file", SECRET)
        write_program(f"{directory}/null", SECRET)
        give_to(user, directory)
        made[directory] = tree_hash(directory)
        return directory

    yield make
    for directory, before in made.items():
        assert tree_hash(directory) == before, "something was changed outside the tree"


def give_to(user: User, tree: HostPath) -> None:
    subprocess.run(["chown", "-hR", f"{user.uid}:{user.gid}", tree], check=True)


def replace_by_link(path: str, text: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    os.symlink(text, path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "{outside}") for name in (*API, "etc")),
        *((name, "../../../../../../{outside}") for name in API),
        ("run", "../../.."),
        ("proc", "/"),
        ("dev", "/etc"),
        ("dev", "proc"),
        ("sys", "proc/sys"),
        ("tmp", "/proc/self/root/{outside}"),
        ("tmp", "/proc/1/cwd"),
        ("etc/resolv.conf", "{outside}/file"),
        ("etc/hosts", "{outside}/file"),
        ("etc/hosts", "../../../../../../{outside}/file"),
        ("etc/resolv.conf", "/proc/self/fd/0"),
        ("etc/hosts", "/dev/null"),
        ("mnt", "{outside}"),
    ],
)
def test_link_leads_nowhere_outside(
    runner: Runner,
    small_tree: Callable[[User], HostPath],
    outside: Callable[[User], HostPath],
    name: str,
    text: str,
) -> None:
    """The run goes well or is refused; the fixtures look at what is outside, and at all mounts."""
    tree, target = small_tree(runner.user), outside(runner.user)
    replace_by_link(f"{tree}/{name}", text.format(outside=target))
    source = os.path.join(os.path.dirname(target), "source")
    os.mkdir(source)
    before = tree_hash(tree)
    done = runner.run(f"--bind={source}:/mnt/below", tree, "--", "/bin/greet")
    assert (done.returncode, done.stdout) == (0, GREETING) or done.returncode == 125, done.stderr
    assert tree_hash(tree) == before
    assert os.listdir(source) == []


def test_users_are_read_inside(
    runner: Runner,
    small_tree: Callable[[User], HostPath],
    outside: Callable[[User], HostPath],
) -> None:
    tree = small_tree(runner.user)
    os.symlink(f"{outside(runner.user)}/passwd", f"{tree}/etc/passwd")
    done = runner.run(f"--user={SECRET}", tree, "--", "/bin/greet")
    assert done.returncode == 2
    assert f"The tree has no user '{SECRET}'" in done.stderr


def test_names_in_a_tree_do_not_reach_the_terminal(
    root: Runner, small_tree: Callable[[User], HostPath]
) -> None:
    tree = small_tree(root.user)
    replace_by_link(f"{tree}/tmp", "evil\x1b]0;title\x07")
    for options in ((), ("--dry-run",)):
        done = root.run(*options, tree, "--", "/bin/greet")
        assert done.returncode == 0
        assert "evil\\x1b]0;title\\x07" in done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_number_of_any_length_is_no_user_id(
    root: Runner, small_tree: Callable[[User], HostPath]
) -> None:
    tree = small_tree(root.user)
    write_program(f"{tree}/etc/passwd", f"long:x:{'9' * 5000}:0::/:/bin/greet\n")
    done = root.run("--user=long", tree, "--", "/bin/greet")
    assert (done.returncode, "The tree has no user 'long'" in done.stderr) == (2, True)


def test_links_that_change_meanwhile_lead_nowhere_outside(
    root: Runner,
    small_tree: Callable[[User], HostPath],
    outside: Callable[[User], HostPath],
) -> None:
    """Between planning and mounting, a directory becomes a link and back, all the time."""
    tree, target = small_tree(root.user), outside(root.user)
    os.symlink(target, f"{tree}/link")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for first, second in (
                ("tmp", "spare"),
                ("link", "tmp"),
                ("tmp", "link"),
                ("spare", "tmp"),
            ):
                os.rename(f"{tree}/{first}", f"{tree}/{second}")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        statuses = {root.run(tree, "--", "/bin/greet").returncode for _ in range(15)}
    finally:
        stop.set()
        swapper.join()
    assert statuses <= {0, 125}


@pytest.mark.parametrize(("change", "calls"), [("tree", 1), ("entry", 3)])
def test_directory_replaced_by_a_link_while_it_is_mounted(
    root: Runner,
    new_tree: Callable[[User], HostPath],
    tmp_path: os.PathLike[str],
    change: str,
    calls: int,
) -> None:
    """At the slowed-down moment between finding a directory and copying its mount."""
    require("strace", shutil.which("strace") is not None, "strace is not installed")
    tree, other, log = new_tree(root.user), new_tree(root.user), f"{os.fspath(tmp_path)}/log"
    for directory, text in ((tree, GREETING), (other, SECRET)):
        write_program(f"{directory}/bin/greet", tiny_program(host_arch(), text.encode()))
    slow = ("signal=none", f"trace={SLOW}", f"inject={SLOW}:delay_enter=500000")
    strace = ["strace", "-f", "-qq", "-o", log, *(word for each in slow for word in ("-e", each))]
    command = [*strace, *root.argv(tree, "--", "/bin/greet")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # Process 1 begins with keyctl(2); the first copy is the tree's, the second that of its only
        # entry, shown on a tmpfs. Each is noted when its delay begins.
        while lines_of(log) < calls:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.1)
        victim = f"{tree}/bin" if change == "entry" else tree
        os.rename(victim, f"{victim}.moved")
        os.symlink(f"{other}/bin" if change == "entry" else other, victim)
        assert process.stdout is not None
        shown = process.stdout.read()
    assert SECRET not in shown
    assert shown == GREETING or process.returncode == 125


def lines_of(path: str) -> int:
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        return len(file.readlines())


def plant(tree: HostPath, program: str) -> None:
    """Put modules and programs wherever a Python that was misled might look for them."""
    library = sysconfig.get_path("stdlib")
    directories = ["", library, f"{library}/lib-dynload", CHECKOUT, f"{CHECKOUT}/xbuild/sandbox"]
    for directory in directories:
        for name in PLANTED:
            write_program(f"{tree}{directory}/{name}.py", program)
            write_program(f"{tree}{directory}/{name}/__init__.py", program)
    for name in ("newuidmap", "newgidmap", "python3", "sh", "mount"):
        write_program(f"{tree}/bin/{name}", f"#!/bin/greet {program}\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--", "greet"), 0),
        (("--", "/nonexistent"), 127),
        (("--", "/etc/hosts"), 126),
        (("--chdir=/nonexistent", "--", "greet"), 125),
        (("--user=12345", "--", "greet"), 0),
    ],
)
def test_nothing_of_the_tree_is_imported_or_run(
    runner: Runner,
    small_tree: Callable[[User], HostPath],
    arguments: tuple[str, ...],
    status: int,
) -> None:
    """Started inside the tree, with a PATH and preloads that point into it as it is inside."""
    tree = small_tree(runner.user)
    plant(tree, "import os; os.write(2, b'PLANTED')")
    give_to(runner.user, tree)
    environment = runner.user.environment(
        PYTHONPATH="/:/bin", PYTHONSTARTUP="/warnings.py", PYTHONHOME="/nonexistent"
    )
    before = tree_hash(tree)
    if runner.kind == "plain" and "--user=12345" in arguments:
        status = 125  # an id that one subordinate range less does not have
    at = arguments.index("--")
    argv = (*arguments[:at], ".", *arguments[at:])
    done = runner.run(*argv, cwd=tree, env=environment)
    assert done.returncode == status, done.stderr
    assert done.stdout == (GREETING if status == 0 else "")
    assert "PLANTED" not in done.stderr
    assert tree_hash(tree) == before


def test_after_the_switch_only_what_is_meant_is_opened(
    root: Runner, small_tree: Callable[[User], HostPath], tmp_path: os.PathLike[str]
) -> None:
    """Every path that process 1 gives to the kernel once the root is the tree's."""
    require("strace", shutil.which("strace") is not None, "strace is not installed")
    tree, log = small_tree(root.user), f"{os.fspath(tmp_path)}/log"
    command = ["strace", "-f", "-qq", "-o", log, "-e", "trace=%file,openat2,pivot_root"]
    done = root.user.run([*command, *root.argv(tree, "--", "greet")])
    assert (done.returncode, done.stdout) == (0, GREETING), done.stderr
    with open(log) as file:
        lines = file.read().splitlines()
    at = next(i for i, line in enumerate(lines) if " pivot_root(" in line)
    process_one = lines[at].split()[0]
    later = [line for line in lines[at + 1 :] if line.startswith(process_one)]
    paths = {path for line in later for path in re.findall(r'"([^"]*)"', line)[:1]}
    assert paths <= {
        ".",
        "/",
        "/root",  # the command's directory
        "dev/mqueue",
        "max_cgroup_namespaces",
        "/dev/null",  # in place of the standard input that was given
        "source",  # fsconfig: the name of a parameter
        "",  # mounts, by descriptor
        *(f"{directory}/greet" for directory in DEFAULT_PATH.split(":")),
    }


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
