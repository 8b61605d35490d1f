"""What the command finds itself in: environment, directory, user, host name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes, write_program
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment_of(output: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in output.split("\0") if item)


def test_environment_is_the_container_s_own(runner: Runner) -> None:
    host = runner.user.environment(SECRET="host", LC_ALL="de_DE", TERM="xterm")
    output = runner.output(runner.tree("arm64"), "env", "-0", env=host)
    assert environment_of(output) == {
        "PATH": PATH,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "container": "xbuild",
    }


def test_environment_is_what_the_plan_says(runner: Runner) -> None:
    words = ("-E", "A=1", "--cpu", "max", runner.tree("arm64"), "env", "-0")
    plan = json.loads(runner.output("--dry-run", "--json", *words))
    stated = dict(plan["steps"][-1]["environment"])
    assert environment_of(runner.output(*words)) == stated
    assert (stated["A"], stated["QEMU_CPU"]) == ("1", "max")


def test_setenv(root: Runner) -> None:
    host = root.user.environment(PASSED="from the host")
    words = ["--setenv", "A=1", "-EB=2=2", "-E", "PASSED", "--setenv=ABSENT", "-E", "A=again"]
    words += ["-E", "EMPTY=", "-E", "LANG=POSIX", "-E", "LINES=a\nb"]
    tree = root.tree("arm64")
    found = environment_of(root.output(*words, tree, "env", "-0", env=host))
    wanted = {"A": "again", "B": "2=2", "PASSED": "from the host", "EMPTY": "", "LANG": "POSIX"}
    assert {**found, **wanted, "LINES": "a\nb"} == found
    assert "ABSENT" not in found


def test_env_file(root: Runner) -> None:
    file = f"{root.user.home}/env"
    with open(file, "wb") as stream:
        stream.write(b"# comment\n\nA=1\n  B= two \r\nC=a=b\nNEL=x\xc2\x85y\nLATIN=\xe9\nD=file\n")
    words = ["--env-file", file, "--setenv", "D=option", root.tree("arm64")]
    found = root.run_bytes(*words, "env", "-0").stdout.split(b"\0")
    wanted = [b"A=1", b"B= two", b"C=a=b", b"NEL=x\xc2\x85y", b"LATIN=\xe9", b"D=option"]
    assert [pair for pair in wanted if pair not in found] == []


@pytest.mark.parametrize("content", [b"no pair\n", b"=value\n", b"A=\0\n"])
def test_bad_env_file_is_named_with_its_line(root: Runner, content: bytes) -> None:
    file = f"{root.user.home}/bad-env"
    with open(file, "wb") as stream:
        stream.write(b"GOOD=1\n" + content)
    done = root.run("--env-file", file, root.tree("arm64"), "env")
    assert (done.returncode, f"{file}:2: " in done.stderr) == (2, True)


def test_missing_env_file(root: Runner) -> None:
    done = root.run("--env-file", "/no/such/file", root.tree("arm64"), "env")
    assert (done.returncode, "/no/such/file" in done.stderr) == (2, True)


def test_chdir(runner: Runner) -> None:
    tree = runner.tree("arm64")
    assert runner.output("--chdir", "/usr/../etc", tree, "pwd") == "/etc\n"
    assert runner.output("--chdir=/tmp", tree, "pwd") == "/tmp\n"
    # Relative names of a command are looked up from there.
    assert runner.run("--chdir", "/bin", tree, "./true").returncode == 0


@pytest.mark.parametrize("directory", ["/no/such", "/etc/passwd"])
def test_chdir_to_what_is_no_directory(root: Runner, directory: str) -> None:
    done = root.run("--chdir", directory, root.tree("arm64"), "pwd")
    assert (done.returncode, f"Cannot start in {directory}" in done.stderr) == (125, True)


def test_chdir_follows_the_tree_s_own_links(root: Runner) -> None:
    """An absolute link means the tree's /etc, not the host's."""
    tree = root.tree("arm64")
    script = "ln -s /etc /tmp/link && cd /tmp/link && cat debian_version"
    with open(f"{tree}/etc/debian_version") as file:
        assert root.shell("arm64", script) == file.read()


DAEMON = "1 1 1 /usr/sbin daemon /usr/sbin"


@pytest.mark.parametrize(
    ("user", "facts"),
    [
        ("daemon", DAEMON),
        ("1", DAEMON),
        ("nobody", "65534 65534 65534 / nobody /nonexistent"),
        ("daemon:staff", "1 50 50 /usr/sbin daemon /usr/sbin"),
        ("daemon:7", "1 7 7 /usr/sbin daemon /usr/sbin"),
        ("4321", "4321 0 0 / 4321 /"),
        ("4321:7", "4321 7 7 / 4321 /"),
        ("root", "0 0 0 /root root /root"),
        ("0:5", "0 5 5 /root root /root"),
    ],
)
@pytest.mark.parametrize("kind", ["root", "ranged"])
def test_user(request: pytest.FixtureRequest, kind: str, user: str, facts: str) -> None:
    runner: Runner = request.getfixturevalue(kind)
    script = "echo $(id -u) $(id -g) $(id -G) $(pwd) $USER $HOME"
    # /dev/null for standard error: qemu's shells complain about HOME's owner now and then.
    assert runner.shell("arm64", script, "--user", user).strip() == facts


def test_supplementary_groups(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    with open(f"{tree}/etc/group", "a") as file:
        file.write("wheel:x:70:daemon,games\nothers:x:71:xdaemon\n")
    assert root.output("--user", "daemon", tree, "id", "-G") == "1 70\n"
    assert root.output("--user", "daemon:7", tree, "id", "-G") == "7 70\n"


def test_user_has_no_privileges(root: Runner) -> None:
    script = "cat /proc/self/status | grep -E '^Cap(Prm|Eff|Amb)' | cut -f2 | sort -u"
    assert root.shell("arm64", script, "--user", "daemon") == "0000000000000000\n"


@pytest.mark.parametrize("user", ["70000", "daemon:70000"])
def test_user_outside_the_container_s_ids(root: Runner, user: str) -> None:
    done = root.run("--user", user, root.tree("arm64"), "id")
    assert (done.returncode, "is not mapped" in done.stderr) == (125, True)


@pytest.mark.parametrize("user", ["4294967295", "9" * 30])
def test_user_that_no_kernel_has(root: Runner, user: str) -> None:
    """4294967295 is -1, by which setresuid(2) changes nothing: the command would be root."""
    done = root.run("--user", user, root.tree("arm64"), "id")
    assert done.returncode in (2, 125)
    assert (done.stdout, done.stderr.startswith("xbuild: ")) == ("", True)


def test_only_one_user_with_one_id(single: Runner) -> None:
    done = single.run("--user", "daemon", single.tree("arm64"), "id")
    assert done.returncode == 125
    assert "uid 1 is not mapped" in done.stderr
    assert "/etc/subuid" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "odd:x:3:3::relative/home:/bin/sh",
        "odd:x:3:3::/../../outside:/bin/sh",
        "odd:x:3:3:: :",
        "odd:x:\u00b2:3::/:/bin/sh\nodd:x:3:3::/no:",
    ],
)
def test_odd_passwd_entries(root: Runner, fresh_tree: Fresh, line: str) -> None:
    tree = fresh_tree("arm64", root.user)
    with open(f"{tree}/etc/passwd", "a") as file:
        file.write(f"nul\0:x:9:9::/:\n{line}\n")
    output = root.output("--user", "odd", tree, "sh", "-c", "id -u; pwd")
    assert output == "3\n/\n"


def test_hostname(runner: Runner) -> None:
    tree = runner.tree("arm64")
    assert runner.output("--hostname", "build-1.example", tree, "hostname") == "build-1.example\n"
    before = os.uname().nodename
    assert runner.run(tree, "hostname", "changed-from-inside").returncode == 0
    assert os.uname().nodename == before


def test_hostname_comes_from_the_tree_s_name(root: Runner) -> None:
    tree = root.tree("arm64")
    link = HostPath(f"{root.user.home}/My_Board v2")
    os.symlink(tree, link)
    try:
        assert root.output(link, "hostname") == "tree\n"
    finally:
        os.unlink(link)


def test_hostname_is_found_in_hosts(runner: Runner) -> None:
    script = "grep '127.0.1.1[[:space:]]board$' /etc/hosts"
    assert runner.shell("arm64", script, "--hostname", "board")


def test_locale_without_utf8(root: Runner) -> None:
    """Names that are no text pass through, and complaints about them still print."""
    environment = {**root.user.environment(), "LANG": "C", "LC_ALL": "POSIX"}
    tree = root.tree("arm64")
    done = root.run_bytes(
        "--setenv", "NAME=\udce9ä", tree, "sh", "-c", 'printf "$NAME $1"', "sh", "\udcff€",
        env=environment,
    )  # fmt: skip
    assert done.stdout == b"\xe9\xc3\xa4 \xff\xe2\x82\xac"
    done = root.run_bytes(tree, "nothing-\udcff-ä", env=environment)
    assert (done.returncode, b"nothing-" in done.stderr) == (127, True)
    done = root.run_bytes("/no/such/\udcff-ä", env=environment)
    assert (done.returncode, b"/no/such/" in done.stderr) == (125, True)


def test_tree_whose_path_is_no_text(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    odd = os.fsencode(os.path.dirname(tree)) + b"/b\xe4d \\ 'n\x01ame\n:x"
    os.rename(tree, odd)
    name = os.fsdecode(odd)
    write_program(f"{name}/opt/caf\udce9", "#!/bin/sh\necho $0\n")
    try:
        for words in ((), ("--ephemeral",), ("--read-only",)):
            done = root.run_bytes(*words, name, "/opt/caf\udce9")
            assert (done.stdout, done.stderr) == (b"/opt/caf\xe9\n", b"")
        assert root.run("--dry-run", name).returncode == 0
        assert root.run("--dry-run", "--json", name).returncode == 0
        assert root.output(name, "hostname").strip().startswith("b-d")
        bound = f"--bind={name.replace(chr(92), chr(92) * 2).replace(':', chr(92) + ':')}:/mnt"
        done = root.run_bytes(bound, root.tree("armhf"), "cat", "/mnt/opt/caf\udce9")
        assert done.stdout.startswith(b"#!/bin/sh")
    finally:
        os.rename(odd, tree)


def test_quiet_when_there_is_nothing_to_say(root: Runner) -> None:
    done = root.run(root.tree("arm64"), "true")
    assert (done.stdout, done.stderr, notes(done)) == ("", "", [])
