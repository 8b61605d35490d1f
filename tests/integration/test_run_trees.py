"""Trees unlike Debian's: static, native, mixed, half empty, hostile."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.runs import Runner, notes, write_program
from tests.trees import tree_hash
from xbuild.binary.arch import arch_named, host_arch
from xbuild.binary.write import tiny_program
from xbuild.record import HostPath

NewTree = Callable[..., HostPath]
Fresh = Callable[..., HostPath]

TINY = ("aarch64", "arm", "mips", "ppc64le", "riscv64", "s390x", "sparc64", "x86_64")


def write_tiny(path: str, arch: str, text: str, *, status: int = 0, mode: int = 0o755) -> None:
    write_program(path, tiny_program(arch_named(arch), text.encode(), status=status), mode)


@pytest.mark.parametrize("arch", TINY)
def test_tree_of_one_static_program(runner: Runner, new_tree: NewTree, arch: str) -> None:
    """No /proc, no /dev, no shell: what the container needs is shown, and not made."""
    tree = new_tree(runner.user)
    write_tiny(f"{tree}/bin/hello", arch, "hello\n", status=7)
    before = tree_hash(tree)
    done = runner.run(tree, "hello")
    assert (done.returncode, done.stdout) == (7, "hello\n"), done.stderr
    assert any("/proc, /sys, /dev, /run, /tmp" in note for note in notes(done))
    assert tree_hash(tree) == before


def test_static_tree_with_an_overlay_or_read_only(runner: Runner, new_tree: NewTree) -> None:
    tree = new_tree(runner.user)
    write_tiny(f"{tree}/init", "arm", "hello\n")
    before = tree_hash(tree)
    for option in ("--ephemeral", "--read-only", "--network=none"):
        assert runner.output(option, tree, "/init") == "hello\n"
    assert tree_hash(tree) == before


def test_no_shell_and_no_command(root: Runner, new_tree: NewTree) -> None:
    tree = new_tree(root.user)
    write_tiny(f"{tree}/bin/hello", "aarch64", "hello\n")
    done = root.run(tree)
    assert (done.returncode, "neither /bin/bash nor /bin/sh" in done.stderr) == (2, True)


def test_shell_where_bash_is_missing(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    os.remove(f"{tree}/bin/bash")
    assert root.output(tree, input="echo $0 $SHELL\n") == "/bin/sh /bin/sh\n"


def test_native_tree_needs_no_emulation(runner: Runner, new_tree: NewTree) -> None:
    program = "/bin/busybox"
    require("busybox", os.path.exists(program), "no static busybox on this host")
    tree = new_tree(runner.user)
    os.mkdir(f"{tree}/bin")
    shutil.copy(program, f"{tree}/bin/sh")
    plan = runner.output("--dry-run", tree, "sh", "-c", "uname -m")
    assert "\n  register" not in plan
    assert runner.output(tree, "sh", "-c", "uname -m") == f"{host_arch().uname}\n"


def test_native_32_bit_tree(runner: Runner, busybox_tree: Callable[..., HostPath]) -> None:
    require("native32", host_arch().name == "x86_64", "no i386 programs run by themselves here")
    tree = busybox_tree("i386", runner.user)
    plan = runner.output("--dry-run", tree, "uname", "-m")
    assert "in 32-bit mode" in plan
    assert "\n  register" not in plan
    assert runner.output(tree, "sh", "-c", "uname -m; exec env uname -m") == "i686\ni686\n"


def test_mixed_tree_runs_both(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    write_tiny(f"{tree}/usr/local/bin/hello32", "arm", "hello from arm\n")
    write_tiny(f"{tree}/usr/local/bin/hello-native", host_arch().name, "hello from here\n")
    shown = runner.output(tree, "sh", "-ec", "uname -m; hello32; hello-native")
    assert shown == "aarch64\nhello from arm\nhello from here\n"
    plan = runner.output("--dry-run", tree, "true")
    assert "register   aarch64 " in plan
    assert "register   arm " in plan


@pytest.mark.parametrize("command", ["odd", "/usr/bin/odd"])
def test_the_command_s_own_architecture_is_never_missed(
    root: Runner, fresh_tree: Fresh, command: str
) -> None:
    """A start looks at a few programs of many, and at the one that it is to run."""
    tree = fresh_tree("arm64")
    for number in range(400):
        shutil.copyfile(f"{tree}/usr/bin/true", f"{tree}/usr/bin/even-{number}")
    write_tiny(f"{tree}/usr/bin/odd", "mips", "seen\n")
    assert root.output(tree, command) == "seen\n"


def test_programs_bound_in_from_outside_are_the_tree_s_affair(root: Runner) -> None:
    """Only what the survey met is registered: another architecture's program fails, by name."""
    place = os.path.join(root.user.home, "foreign")
    write_tiny(place, "m68k", "x")
    done = root.run("--bind", f"{place}:/mnt/foreign", root.tree("arm64"), "/mnt/foreign")
    assert (done.returncode, "Cannot execute /mnt/foreign" in done.stderr) == (126, True)
    assert "a program for m68k" in done.stderr


@pytest.mark.parametrize("is_joining", [False, True], ids=["run", "exec"])
def test_what_a_program_that_is_bound_in_lacks_is_named(root: Runner, is_joining: bool) -> None:
    place = os.path.join(root.user.home, "mine")
    write_program(f"{place}/script", "#!/no/interpreter -x\n")
    shutil.copyfile("/bin/true", f"{place}/program")
    os.chmod(f"{place}/program", 0o755)
    words = ("--bind", f"{place}:/mnt", root.tree("arm64"))
    name = root.command("hold", *words).stdout.strip() if is_joining else ""

    def refused(program: str) -> str:
        done = root.command("exec", name, program) if is_joining else root.run(*words, program)
        assert done.returncode == 126
        return done.stderr

    try:
        assert "not in the tree: #!/no/interpreter" in refused("/mnt/script")
        assert re.search(
            r" /\S+, the dynamic loader of this \w+ program, ", refused("/mnt/program")
        )
    finally:
        if name:
            root.command("stop", name)


def test_program_of_mode_0711(runner: Runner, fresh_tree: Fresh) -> None:
    """The flag O: the interpreter gets it opened, for it could not open it by itself."""
    tree = fresh_tree("arm64", runner.user)
    write_tiny(f"{tree}/usr/local/bin/unreadable", "aarch64", "ran\n", mode=0o711)
    options = [] if runner.kind == "plain" else ["--user", "nobody"]
    assert runner.output(*options, tree, "unreadable") == "ran\n"


def test_setuid_program_becomes_root(fresh_tree: Fresh, root: Runner, ranged: Runner) -> None:
    """The flag C: credentials are the program's, not the interpreter's."""
    for runner in (root, ranged):
        tree = fresh_tree("armhf", runner.user)
        shutil.copy(f"{tree}/usr/bin/id", f"{tree}/usr/bin/id-root")
        os.chown(f"{tree}/usr/bin/id-root", runner.user.uid, runner.user.gid)
        os.chmod(f"{tree}/usr/bin/id-root", 0o4755)
        script = "id -u; id-root -u; id-root -ru"
        shown = runner.output("--setuid", "--user", "nobody", tree, "sh", "-ec", script)
        assert shown.split() == ["65534", "0", "65534"]


def test_setuid_programs_of_the_host_stay_powerless(root: Runner) -> None:
    """What is bound in is mounted nosuid."""
    place = os.path.join(root.user.home, "setuid-id")
    shutil.copy(f"{root.tree('arm64')}/usr/bin/id", place)
    os.chmod(place, 0o4755)
    words = ("--setuid", "--user", "nobody", "--bind", f"{place}:/mnt/id")
    assert root.output(*words, root.tree("arm64"), "/mnt/id", "-u") == "65534\n"


def test_chroot_inside_still_emulates(runner: Runner, fresh_tree: Fresh) -> None:
    """The flag F: the interpreter is open already, whatever the root."""
    tree = fresh_tree("arm64", runner.user)
    write_tiny(f"{tree}/srv/inner/bin/hello", "aarch64", "hello\n")
    assert runner.output(tree, "chroot", "/srv/inner", "/bin/hello") == "hello\n"


@pytest.mark.parametrize(
    ("path", "target"),
    [("proc", "/proc"), ("dev", "self"), ("tmp", "/loop"), ("run", "../../run")],
)
def test_loop_where_the_container_mounts(
    root: Runner, fresh_tree: Fresh, path: str, target: str
) -> None:
    tree = fresh_tree("arm64", root.user)
    shutil.rmtree(f"{tree}/{path}")
    os.symlink(target if target != "self" else path, f"{tree}/{path}")
    if target == "/loop":
        os.symlink("/tmp", f"{tree}/loop")
    done = root.run(tree, "true")
    assert (done.returncode, "symbolic links" in done.stderr) == (125, True), done.stderr


def test_loop_at_etc_is_no_obstacle(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    os.rename(f"{tree}/etc", f"{tree}/etc.old")
    os.symlink("etc", f"{tree}/etc")
    assert root.output(tree, "echo", "ran") == "ran\n"
    done = root.run("--user", "daemon", tree, "true")
    assert (done.returncode, "no user 'daemon'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "links",
    [
        {"proc": "usr/proc"},
        {"tmp": "/var/tmp"},
        {"run": "var/run2"},
        {"dev": "/../../../usr/dev"},
        {"sys": "missing/sys"},
    ],
)
def test_links_where_the_container_mounts(
    runner: Runner, fresh_tree: Fresh, links: dict[str, str]
) -> None:
    tree = fresh_tree("arm64", runner.user)
    for name, target in links.items():
        shutil.rmtree(f"{tree}/{name}")
        os.symlink(target, f"{tree}/{name}")
    before = tree_hash(tree)
    script = "cat /proc/1/comm; : >/tmp/x >/run/x >/dev/null; ls -d /sys/class; readlink /" + name
    shown = runner.output(tree, "sh", "-ec", script).split()
    assert shown == ["xbuild-init", "/sys/class", target]
    assert tree_hash(tree) == before


@pytest.mark.parametrize("name", ["proc", "dev", "tmp"])
def test_file_where_the_container_mounts(root: Runner, fresh_tree: Fresh, name: str) -> None:
    tree = fresh_tree("arm64", root.user)
    shutil.rmtree(f"{tree}/{name}")
    write_program(f"{tree}/{name}", "")
    done = root.run(tree, "true")
    assert (done.returncode, f"Cannot mount on /{name}" in done.stderr) == (125, True)


def test_unreadable_directories(need_root: None, ranged: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", ranged.user)
    for name in ("etc", "root", "opt"):
        os.chown(f"{tree}/{name}", 0, 0)
        os.chmod(f"{tree}/{name}", 0o700)
    assert ranged.output(tree, "pwd") == "/\n"


def test_tree_in_a_directory_out_of_reach(
    need_root: None, ranged: Runner, fresh_tree: Fresh
) -> None:
    tree = fresh_tree("arm64", ranged.user)
    above = os.path.dirname(tree)
    os.chown(above, 0, 0)
    os.chmod(above, 0o700)
    done = ranged.run(tree, "true", cwd="/")
    assert (done.returncode, "Permission denied" in done.stderr) == (125, True), done.stderr
    assert tree in done.stderr
