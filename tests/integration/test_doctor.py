"""``xbuild doctor`` on this host, and on hosts made worse for real: nothing is mocked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import OpenTerminal
from tests.fuse import fuse_user
from tests.interpreters import WITHOUT_QEMU
from tests.trees import TreeStore
from tests.users import User
from xbuild.binary.arch import arch_named
from xbuild.emulation.faults import faults_of
from xbuild.emulation.rules import derive_rule
from xbuild.record import HostPath

Require = Callable[[str, bool, str], None]
Xbuild = Callable[[User | None], list[str]]
Tree = Callable[..., HostPath]

CHECKS = [
    "kernel",
    "openat2",
    "namespaces",
    "own /proc",
    "subordinate ids",
    "idmapped mounts",
    "overlay",
    "qemu",
    "qemu faults",
    "private binfmt",
    "host binfmt",
    "loop devices",
    "FUSE",
    "cgroup delegation",
]


class Report:
    """What ``doctor --json`` said and how it ended."""

    def __init__(self, answer: subprocess.CompletedProcess[str]) -> None:
        assert answer.stdout, answer.stderr
        document: dict[str, Any] = json.loads(answer.stdout)  # Any: JSON
        assert document["schema"] == "xbuild.doctor/1"
        assert answer.stderr == ""
        self.status = answer.returncode
        self.rows = {row["check"]: row for row in document["checks"]}
        self.target = document["target"]
        assert all(row["fix"] for row in self.rows.values() if row["state"] == "missing")

    def state(self, check: str) -> str:
        return str(self.rows[check]["state"])

    def words(self, check: str) -> str:
        return f"{self.rows[check]['detail']} | {self.rows[check]['fix']}"


def _run(command: list[str]) -> Report:
    return Report(subprocess.run(command, capture_output=True, text=True, check=False))


def test_root_of_the_host_has_everything(need_root: None, xbuild_for: Xbuild) -> None:
    report = _run([*xbuild_for(None), "doctor", "--json"])
    assert list(report.rows) == CHECKS
    assert report.status == 0
    assert report.target is None
    states = {check: report.state(check) for check in CHECKS}
    assert states.pop("subordinate ids") == states.pop("FUSE") == "n/a"
    assert states.pop("host binfmt") in ("ok", "n/a")
    assert states.pop("cgroup delegation") in ("ok", "missing")
    assert states.pop("qemu faults") in ("ok", "faulty")
    assert set(states.values()) == {"ok"}, report.rows


def test_every_interpreter_is_run_for_its_version(xbuild_for: Xbuild) -> None:
    report = _run([*xbuild_for(None), "doctor", "--json"])
    assert re.search(r"qemu \d+\.\d+\.\d+: arm64, ", report.words("qemu"))


def test_known_faults_of_the_hosts_versions_come_with_their_issues(xbuild_for: Xbuild) -> None:
    report = _run([*xbuild_for(None), "doctor", "--json"])
    versions = {
        (arch_named(name), version)
        for version, names in re.findall(r"qemu ([\d.]+): ([^;]+)", report.rows["qemu"]["detail"])
        for name in names.split(", ")
    }
    known = {fault for arch, version in versions for fault in faults_of(arch, version)}
    assert report.state("qemu faults") == ("faulty" if known else "ok")
    for fault in known:
        assert f"{fault.in_words()}: {fault.issue}" in report.words("qemu faults")
    assert not known or "xbuild setup --version" in report.words("qemu faults")


def test_ordinary_user_has_ids_mapped_and_is_told_what_is_root_s(
    ordinary_user: User, xbuild_for: Xbuild
) -> None:
    answer = ordinary_user.run([*xbuild_for(ordinary_user), "doctor", "--json"])
    report = Report(answer)
    assert report.words("subordinate ids").startswith("65537 user ids, your own and ")
    for check in ("namespaces", "own /proc", "overlay", "qemu", "private binfmt"):
        assert report.state(check) == "ok", report.words(check)
    for check in ("idmapped mounts", "loop devices"):
        assert report.state(check) == "n/a"


def test_user_of_images_is_told_what_fuse_lacks(
    ordinary_user: User, xbuild_for: Xbuild, need_root: None
) -> None:
    command = [*xbuild_for(ordinary_user), "doctor", "--json"]
    assert Report(fuse_user(ordinary_user).run(command)).state("FUSE") == "ok"
    closed = Report(fuse_user(ordinary_user, mode="600").run(command))
    assert closed.state("FUSE") == "missing"
    assert "chmod 666 /dev/fuse" in closed.words("FUSE")
    hidden = Report(fuse_user(ordinary_user, hidden=("/usr/bin/fuse2fs",)).run(command))
    assert hidden.state("FUSE") == "missing"
    assert "install fuse2fs" in hidden.words("FUSE")


def test_user_without_ids_is_told_how_to_get_them(plain_user: User, xbuild_for: Xbuild) -> None:
    report = Report(plain_user.run([*xbuild_for(plain_user), "doctor", "--json"]))
    assert report.state("subordinate ids") == "missing"
    fix = report.rows["subordinate ids"]["fix"]
    spans = re.fullmatch(
        r"as root: usermod --add-subuids (\d+)-(\d+) --add-subgids \1-\2 " + plain_user.name, fix
    )
    assert spans is not None, fix
    assert int(spans[2]) - int(spans[1]) == 65535


def test_user_without_newuidmap_is_told_which_package(
    ordinary_user: User, xbuild_for: Xbuild
) -> None:
    hidden = ["/usr/bin/env", "PATH=/nonexistent", *xbuild_for(ordinary_user)]
    report = Report(ordinary_user.run([*hidden, "doctor", "--json"]))
    assert "package uidmap" in report.words("subordinate ids")


def test_newuidmap_that_is_not_privileged_is_quoted(
    ordinary_user: User, xbuild_for: Xbuild
) -> None:
    command = [*xbuild_for(ordinary_user), "doctor", "--json"]
    report = Report(ordinary_user.run(["setpriv", "--no-new-privs", "--", *command]))
    assert "newuidmap refused the ids" in report.words("subordinate ids")
    assert "no_new_privs" in report.words("subordinate ids")


@pytest.mark.parametrize("architecture", ["arm64", "s390x"])
def test_tree_is_run_to_know_that_it_can_be(
    xbuild_for: Xbuild, foreign_tree: Tree, architecture: str
) -> None:
    tree = foreign_tree(architecture)
    report = _run([*xbuild_for(None), "doctor", "--json", tree])
    assert report.status == 0
    assert report.target["can_run"]
    assert report.target["tried"]
    (found,) = report.target["architectures"]
    assert (found["way"], found["problem"]) == ("private", None)
    assert os.path.exists(found["interpreter"])
    assert report.target["distribution"].startswith("Debian")


def test_tree_is_run_as_an_ordinary_user(
    ordinary_user: User, xbuild_for: Xbuild, foreign_tree: Tree
) -> None:
    tree = foreign_tree("arm64", ordinary_user)
    report = Report(ordinary_user.run([*xbuild_for(ordinary_user), "doctor", "--json", tree]))
    assert (report.status, report.target["can_run"], report.target["tried"]) == (0, True, True)


def test_tree_of_another_owner_comes_with_a_note(
    need_root: None, plain_user: User, xbuild_for: Xbuild, foreign_tree: Tree
) -> None:
    report = Report(
        plain_user.run([*xbuild_for(plain_user), "doctor", "--json", foreign_tree("arm64")])
    )
    assert report.status == 0
    assert any("belongs to root, not to you" in note for note in report.target["notes"])


def test_overlay_over_a_tree_with_mounts_is_explained(xbuild_for: Xbuild, fresh_tree: Tree) -> None:
    tree = fresh_tree("arm64")
    script = f'mount -t tmpfs none {tree}/mnt; exec unshare -Urm "$@"'
    inside = [*xbuild_for(None), "doctor", "--json", tree]
    report = _run(["unshare", "-Urm", "sh", "-ec", script, "sh", *inside])
    assert "file systems are mounted below it" in report.words("overlay")


def test_doctor_does_not_mind_where_it_is_started(
    xbuild_for: Xbuild, tmp_path: os.PathLike[str]
) -> None:
    script = f'cd {tmp_path}; mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    for start in ('cd /; exec "$@"', script):
        report = _run(["sh", "-ec", start, "sh", *xbuild_for(None), "doctor", "--json"])
        assert report.state("overlay") == "ok", report.words("overlay")


def test_archive_is_to_be_unpacked_first(xbuild_for: Xbuild, tree_store: TreeStore) -> None:
    archive = tree_store.archive("arm64")
    report = _run([*xbuild_for(None), "doctor", "--json", archive])
    assert report.status == 1
    assert report.target["kind"] == "archive"
    assert "unpack it first" in report.target["fix"]


def test_what_is_no_tree_cannot_be_run(xbuild_for: Xbuild, tmp_path: os.PathLike[str]) -> None:
    for target in (f"{tmp_path}/absent", os.fspath(tmp_path), "/usr/bin/env"):
        answer = subprocess.run(
            [*xbuild_for(None), "doctor", target], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 1
        last = answer.stdout.splitlines()[-2:]
        assert last[0].split()[:2] == ["target", "missing"]
        assert last[1].strip().startswith("fix: ")


def test_tree_without_its_loader_cannot_be_run(xbuild_for: Xbuild, fresh_tree: Tree) -> None:
    tree = fresh_tree("arm64")
    real = os.path.realpath(f"{tree}/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1")
    os.unlink(real)
    report = _run([*xbuild_for(None), "doctor", "--json", tree])
    assert report.status == 1
    assert "/lib/ld-linux-aarch64.so.1" in report.target["problem"]


@pytest.mark.parametrize("kind", ["user", "ipc", "net"])
def test_namespaces_that_are_switched_off_are_named(xbuild_for: Xbuild, kind: str) -> None:
    script = f'echo 0 > /proc/sys/user/max_{kind}_namespaces; exec "$@"'
    inside = [*xbuild_for(None), "doctor", "--json"]
    report = _run(["unshare", "-Ur", "sh", "-ec", script, "sh", *inside])
    assert report.state("namespaces") == "missing"
    assert f"(user.max_{kind}_namespaces=0)" in report.words("namespaces")
    assert f"sysctl user.max_{kind}_namespaces=15000" in report.words("namespaces")
    assert report.status == 0


def test_tree_cannot_be_run_where_namespaces_are_switched_off(
    xbuild_for: Xbuild, foreign_tree: Tree
) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    inside = [*xbuild_for(None), "doctor", "--json", foreign_tree("arm64")]
    report = _run(["unshare", "-Ur", "sh", "-ec", script, "sh", *inside])
    assert (report.status, report.target["can_run"]) == (1, False)
    assert "(user.max_user_namespaces=0)" in report.target["problem"]


def test_used_up_namespaces_of_an_outer_one_are_told_apart(xbuild_for: Xbuild) -> None:
    script = 'echo 1 > /proc/sys/user/max_user_namespaces; exec unshare -Ur "$@"'
    inside = [*xbuild_for(None), "doctor", "--json"]
    report = _run(["unshare", "-Ur", "sh", "-ec", script, "sh", *inside])
    assert "in an outer user namespace" in report.words("namespaces")


CHROOT = """
cd /
for name in *; do
    if [ -L "$name" ]; then cp -P "$name" "$ROOT/"
    elif [ -d "$name" ]; then mkdir "$ROOT/$name"; mount --rbind "/$name" "$ROOT/$name"
    fi
done
exec chroot "$ROOT" "$@"
"""


def test_chroot_is_named(
    need_root: None,
    xbuild_for: Xbuild,
    foreign_tree: Tree,
    reachable_directory: HostPath,
) -> None:
    root = f"{reachable_directory}/chroot"
    os.mkdir(root)
    inside = [*xbuild_for(None), "doctor", "--json", foreign_tree("arm64")]
    command = ["unshare", "--mount", "env", f"ROOT={root}", "sh", "-ec", CHROOT, "sh", *inside]
    report = _run(command)
    assert report.status == 1
    assert "a process inside a chroot may not" in report.words("namespaces")
    assert "start xbuild outside of the chroot" in report.words("namespaces")
    assert "chroot" in report.target["problem"]


SECCOMP = """
import ctypes, os, struct, sys
UNSHARE = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
ALLOW, EPERM = 0x7FFF0000, 0x00050001
filters = [(0x20, 0, 0, 0), (0x15, 0, 1, UNSHARE), (0x06, 0, 0, EPERM), (0x06, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in filters))
program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_seccomp_filter_is_named(xbuild_for: Xbuild) -> None:
    report = _run(["/usr/bin/python3", "-c", SECCOMP, *xbuild_for(None), "doctor", "--json"])
    assert "a seccomp filter" in report.words("namespaces")
    assert "--security-opt seccomp=unconfined" in report.words("namespaces")


def test_masked_proc_is_named_with_its_masks(xbuild_for: Xbuild) -> None:
    script = 'mount -t tmpfs none /proc/sys; exec "$@"'
    inside = [*xbuild_for(None), "doctor", "--json"]
    report = _run(["unshare", "-Urm", "sh", "-ec", script, "sh", *inside])
    assert report.state("own /proc") == "missing"
    assert "masked here (/proc/sys)" in report.words("own /proc")
    assert "systempaths=unconfined" in report.words("own /proc")


def test_host_without_qemu_is_told_how_to_get_it(
    need_root: None, xbuild_for: Xbuild, foreign_tree: Tree
) -> None:
    inside = [*xbuild_for(None), "doctor", "--json", foreign_tree("arm64")]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", WITHOUT_QEMU]
    report = _run([*command, "sh", *inside])
    assert report.state("qemu") == "missing"
    assert report.rows["qemu"]["fix"].startswith("install a static")
    assert "by a stand-in" in report.words("private binfmt")
    assert report.status == 1
    assert report.target["fix"].startswith("install a static")


def test_failing_entry_of_the_host_is_named(xbuild_for: Xbuild) -> None:
    # The host's registry, as far as a process of this user namespace can tell.
    directory = "/proc/sys/fs/binfmt_misc"
    interpreter = HostPath("/nonexistent")
    rule = derive_rule(arch_named("aarch64"), interpreter=interpreter, flags="", name="broken")
    script = (
        f'mount -t binfmt_misc none {directory}; printf %s "$RULE" > {directory}/register;'
        ' exec "$@"'
    )
    environment = ["env", f"RULE={rule.line().decode()}"]
    inside = [*xbuild_for(None), "doctor", "--json"]
    report = _run([*environment, "unshare", "-Urm", "sh", "-ec", script, "sh", *inside])
    assert report.state("host binfmt") == "missing"
    assert "broken does not run arm64" in report.words("host binfmt")
    assert "xbuild binfmt register arm64" in report.words("host binfmt")


def test_killed_doctor_leaves_nothing(xbuild_for: Xbuild, foreign_tree: Tree) -> None:
    tree = foreign_tree("arm64")
    for delay_s in (0.15, 0.3, 0.45):
        with subprocess.Popen(
            [*xbuild_for(None), "doctor", tree], stdout=subprocess.DEVNULL
        ) as process:
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)


def test_plain_text_has_a_line_for_each_check_and_no_escapes(xbuild_for: Xbuild) -> None:
    answer = subprocess.run(
        [*xbuild_for(None), "doctor"], capture_output=True, text=True, check=False
    )
    lines = [line for line in answer.stdout.splitlines() if not line.startswith(" ")]
    assert [line[: len(check)] for line, check in zip(lines, CHECKS, strict=True)] == CHECKS
    assert "\x1b" not in answer.stdout
    assert answer.returncode == 0


@pytest.mark.parametrize(("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_table_on_a_terminal_is_coloured_unless_told_not_to(
    xbuild_for: Xbuild, open_terminal: OpenTerminal, variables: dict[str, str], is_coloured: bool
) -> None:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/root", **variables}
    session = open_terminal([*xbuild_for(None), "doctor"], env=environment)
    session.expect("cgroup delegation")
    shown = str(session.before)
    session.wait()
    assert ("\x1b[32m" in shown) is is_coloured
    assert re.search(r"kernel .*ok", shown)
