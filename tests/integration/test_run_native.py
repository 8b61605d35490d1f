"""Native programs in place of a tree's own: which run, and that all else sees the tree's files."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes
from tests.toolsets import NATIVE, NativeAs, NativeRunner, digest_of
from tests.trees import tree_hash
from xbuild.record import HostPath

ARCH = "/usr/bin/arch"
FOREIGN = "aarch64"

pytestmark = pytest.mark.usefixtures("host_untouched")


def test_native_program_stands_in_at_exec(runner: Runner, native_as: NativeAs) -> None:
    native, tree = native_as(runner), runner.tree("arm64")
    native.prepare(tree, ARCH)
    before = tree_hash(tree)
    script = f"arch; uname -m; sha256sum {ARCH} | cut -c 1-64; ls -l /usr/bin | grep -c ' arch$'"
    for options in ((), ("--read-only",), ("--ephemeral",)):
        shown = native.output(*options, tree, "--", "sh", "-c", script).split()
        assert shown == [NATIVE, FOREIGN, digest_of(f"{tree}{ARCH}"), "1"], options
    assert tree_hash(tree) == before


@pytest.mark.parametrize(
    ("debian", "name", "machine"),
    [("armhf", "arm", "armv7l"), ("s390x", "s390x", "s390x"), ("mipsel", "mipsel", "mips")],
)
def test_trees_of_other_widths_and_byte_orders(
    root: Runner, native: NativeRunner, debian: str, name: str, machine: str
) -> None:
    native.architecture, tree = name, root.tree(debian)
    native.prepare(tree, ARCH)
    script = "arch; uname -m; chroot /usr /bin/arch"
    shown = native.output(tree, "--", "sh", "-c", script).split()
    assert shown == [NATIVE, machine, machine]


def test_without_the_option_nothing_is_native(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    for option in ((), ("--native=off",)):
        environment = root.user.environment(XDG_CACHE_HOME=native.cache)
        assert root.output(*option, tree, "--", "arch", env=environment) == f"{FOREIGN}\n"


def test_profile_may_ask_for_it_and_the_command_line_refuse(
    root: Runner, native: NativeRunner
) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    profile = f"{native.cache}/quick.toml"
    with open(profile, "w") as file:
        file.write('native = "exact"\n')
    environment = root.user.environment(XDG_CACHE_HOME=native.cache)
    for options, shown in (((), NATIVE), (("--native=off",), FOREIGN)):
        arguments = ("--profile", profile, *options, tree, "--", "arch")
        assert root.output(*arguments, env=environment) == f"{shown}\n"


def test_programs_of_both_kinds_start_each_other(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH, "/usr/bin/env", "/usr/bin/dash")
    assert native.output(tree, "--", "env", "/usr/bin/uname", "-m") == f"{FOREIGN}\n"
    assert native.output(tree, "--", "bash", "-c", "env /usr/bin/arch") == f"{NATIVE}\n"
    script = "readlink /proc/$$/exe; /usr/bin/arch; /usr/bin/uname -m; bash -c arch"
    shown = native.output(tree, "--", "/bin/sh", "-c", script).split()
    assert shown == ["/run/xbuild/native/bin/dash", NATIVE, FOREIGN, NATIVE]


def test_interpreter_of_a_script_is_native(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/dash")
    line = "#!/bin/sh -e\necho $0 $1; readlink /proc/$$/exe\n"
    place = ("sh", "-c", f"printf '{line}' >/tmp/script; chmod 755 /tmp/script; /tmp/script one")
    shown = native.output(tree, "--", "bash", "-c", shlex_join(place))
    assert shown.split() == ["/tmp/script", "one", "/run/xbuild/native/bin/dash"]


def shlex_join(words: tuple[str, ...]) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def test_program_is_given_its_name_and_arguments(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/cat")
    script = "exec -a /any/where/cat cat /proc/self/cmdline"
    shown = native.output(tree, "--", "bash", "-c", script)
    assert shown == "/any/where/cat\0/proc/self/cmdline\0"
    script = "cat /proc/self/cmdline - '' 'two words' </dev/null"
    shown = native.output(tree, "--", "bash", "-c", f"{script} 2>&1 | head -1 | tr '\\0' ,")
    assert shown.startswith("cat,/proc/self/cmdline,-,,two words,")


def test_arguments_are_inserted_and_some_keep_it_emulated(
    root: Runner, native: NativeRunner
) -> None:
    tree = root.tree("arm64")
    exceptions = ("*=native", "-fplugin", "@")
    native.prepare(tree, "/usr/bin/echo", arguments=("one", "two"), emulate_for=exceptions)
    echo = (tree, "--", "/usr/bin/echo")
    assert native.output(*echo, "three") == "one two three\n"
    assert native.output(*echo) == "one two\n"
    for word in ("-march=native", "-fplugin=/x", "@file", "=native"):
        assert native.output(*echo, "a", word, "b") == f"a {word} b\n"
    for word in ("-march=natives", "-fplug", "a@file", "native"):
        assert native.output(*echo, word) == f"one two {word}\n"


def test_patterns_of_arguments_keep_it_emulated(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    patterns = ("*%*[aefgAEFG]*", "*[!-0-9dwx%]*", "*????????????????", "*x?[]y]*z*w")
    native.prepare(tree, "/usr/bin/echo", arguments=("native",), emulate_for=patterns)
    echo = (tree, "--", "/usr/bin/echo")
    for word in ("%d%5.2f", "%dG", "15b", "1.5", "1234567890123456"):
        assert native.output(*echo, "1", word) == f"1 {word}\n"
    for word in ("%d", "123456789012345", "xx-x-0-", "", "%", "--w"):
        assert native.output(*echo, "1", word) == f"native 1 {word}\n"


def test_longest_argument_of_all(root: Runner, native: NativeRunner) -> None:
    """MAX_ARG_STRLEN (execve(2)): 128 KiB with the zero byte."""
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/echo", arguments=("one",))
    script = "x=$(head -c 131071 /dev/zero | tr '\\0' x); /usr/bin/echo \"$x\" | wc -c"
    assert native.output(tree, "--", "bash", "-c", script) == f"{131072 + 4}\n"


def test_environment_is_passed_on(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/env")
    lines = native.output("-E", "A=b c", "-E", "LD_LIBRARY_PATH=/none", tree, "--", "env")
    assert {"A=b c", "LD_LIBRARY_PATH=/none"} <= set(lines.splitlines())


@pytest.mark.parametrize(
    "variable",
    [
        *("LD_PRELOAD=libnone.so", "LD_TRACE_LOADED_OBJECTS=1", "LD_AUDIT=libnone.so"),
        *("LD_SHOW_AUXV=1", "LD_DEBUG=statistics"),
    ],
)
def test_what_a_loader_is_told_is_left_to_the_trees_own(
    root: Runner, native: NativeRunner, variable: str
) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    shown = native.output(tree, "--", "sh", "-c", f"{variable} arch 2>/dev/null")
    assert NATIVE not in shown.split()


def test_preload_is_dropped_for_who_needs_none(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/env", drops_preload=True)
    preload = "LD_PRELOAD=libfakeroot-sysv.so:/usr/lib/libsandbox.so"
    variables = ("A=1", preload, "B=2", "LD_PRELOADS=3")
    shown = native.output(tree, "--", "bash", "-c", f"{' '.join(variables)} env").splitlines()
    assert {"A=1", "B=2", "LD_PRELOADS=3"} <= set(shown)
    assert not any(line.startswith("LD_PRELOAD=") for line in shown)


@pytest.mark.parametrize(
    "libraries", ["/usr/lib/faketime/libfaketime.so.1", "libfakeroot.so:libfakechroot.so"]
)
def test_preload_that_compilers_could_show_is_not_dropped(
    root: Runner, native: NativeRunner, libraries: str
) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/env", drops_preload=True)
    shown = native.output(tree, "--", "bash", "-c", f"LD_PRELOAD={libraries} env 2>/dev/null")
    assert f"LD_PRELOAD={libraries}" in shown.splitlines()


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ("LANG=C.UTF-8", NATIVE),
        ("LANG=de_DE.UTF-8", FOREIGN),
        ("LANG= LC_CTYPE=POSIX", NATIVE),
        ("LANG=C LC_COLLATE=en_US.utf8", FOREIGN),
        ("LANG=de_DE.UTF-8 LC_ALL=C", NATIVE),
        ("LANG=C LC_ALL=de_DE", FOREIGN),
        ("LANG=C.UTF-88", FOREIGN),
        ("LC_ALL= LANGUAGE=de LCD=x", NATIVE),
    ],
)
def test_locales_of_the_tree_are_for_its_own_programs(
    root: Runner, native: NativeRunner, variables: str, shown: str
) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    assert native.output(tree, "--", "sh", "-c", f"{variables} arch") == f"{shown}\n"


CHANGES = {
    "replaced": "cp /usr/bin/arch /usr/bin/new; mv /usr/bin/new /usr/bin/arch",
    "touched": "touch /usr/bin/arch",
    "written to": "printf '' >>/usr/bin/arch; chmod 755 /usr/bin/arch",
    "set-user-ID": "chmod 4755 /usr/bin/arch",
    "linked to": "ln -sf uname /usr/bin/arch",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_file_is_emulated_at_once(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath], change: str
) -> None:
    tree = fresh_tree("arm64")
    native.prepare(tree, ARCH)
    script = f"arch; {CHANGES[change]}; arch 2>/dev/null"
    shown = native.output("--ephemeral", tree, "--", "sh", "-c", script).split()
    assert shown[:1] == [NATIVE]
    assert NATIVE not in shown[1:]
    shown = native.output(tree, "--", "sh", "-c", script).split()
    assert shown[:1] == [NATIVE]
    assert NATIVE not in shown[1:]


def test_content_is_compared_when_a_run_begins(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    native.prepare(tree, ARCH, "/usr/bin/env")
    os.utime(f"{tree}{ARCH}")  # another time, the same file
    assert native.output(tree, "--", "arch") == f"{NATIVE}\n"
    with open(f"{tree}{ARCH}", "ab") as file:
        file.write(b"\0")
    done = native.run(tree, "--", "sh", "-c", "arch; env /usr/bin/arch")
    assert done.stdout.split() == [FOREIGN, FOREIGN]
    assert f"note: no longer as when their native tools were prepared, and emulated: {ARCH}" in (
        done.stderr
    )


def test_many_that_changed_are_counted(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    changed = [f"/usr/bin/{name}" for name in ("cut", "env", "head", "id", "nl", "od")]
    native.prepare(tree, ARCH, *changed)
    for path in changed:
        with open(f"{tree}{path}", "ab") as file:
            file.write(b"\0")
    said = notes(native.run(tree, "--", "true"))
    (note,) = [each for each in said if each.startswith("no longer as")]
    assert f"{', '.join(changed[:4])} and 2 more, which --dry-run names" in note


def test_package_manager_replaces_what_is_substituted(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    build = """
        mkdir -p /p/DEBIAN /p/usr/local/bin
        printf 'Package: tool\\nVersion: %s\\nArchitecture: arm64\\n' $1 >/p/DEBIAN/control
        printf 'Maintainer: none\\nDescription: tool\\n' >>/p/DEBIAN/control
        cp /usr/bin/$2 /p/usr/local/bin/arch; dpkg-deb -b /p /tool-$1.deb >/dev/null
        """
    for version, program in (("1", "arch"), ("2", "uname")):
        root.output(tree, "--", "sh", "-ec", build, "sh", version, program)
    root.output(tree, "--", "dpkg", "-i", "/tool-1.deb")
    native.prepare(tree, "/usr/local/bin/arch")
    script = "exec 2>&1; arch; dpkg -i /tool-2.deb >/dev/null && arch; dpkg -V tool"
    shown = native.output(tree, "--", "sh", "-c", script).split()
    assert shown == [NATIVE, "Linux"]
    assert os.listdir(f"{tree}/usr/local/bin") == ["arch"]


def test_ldd_and_readers_see_the_trees_program(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    script = f"ldd {ARCH}; head -c 20 {ARCH} | tail -c 2 | od -An -tx1"
    shown = native.output(tree, "--", "bash", "-c", script)
    assert "ld-linux-aarch64" in shown
    assert shown.endswith(" b7 00\n")  # e_machine


def test_setuid_program_is_never_native(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    native.prepare(tree, ARCH, "/usr/bin/id")
    os.chmod(f"{tree}/usr/bin/id", 0o4755)
    done = native.run("--setuid", "-u", "nobody", tree, "--", "sh", "-c", "arch; id -ru; id -u")
    assert done.stdout.split() == [NATIVE, "65534", "0"]
    plan = native.output("--dry-run", tree)
    assert "emulated: id: it is set-user-ID or set-group-ID" in plan


def test_program_that_may_only_be_executed(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    native.prepare(tree, ARCH, "/usr/bin/env")
    os.chmod(f"{tree}{ARCH}", 0o711)
    script = f"arch; head -c 1 {ARCH}"
    done = native.run("--user", "nobody", tree, "--", "sh", "-c", script)
    assert done.stdout.split() == [NATIVE]
    assert "Permission denied" in done.stderr
    os.chmod(f"{tree}{ARCH}", 0o700)
    done = native.run("--user", "nobody", tree, "--", "arch")
    assert done.returncode == 126


def test_chroot_inside_is_emulated_and_works(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    script = "chroot /usr /bin/arch; chroot / arch; arch"
    shown = native.output(tree, "--", "sh", "-ec", script).split()
    assert shown == [FOREIGN, NATIVE, NATIVE]


def test_native_files_cannot_be_changed_from_inside(runner: Runner, native_as: NativeAs) -> None:
    native, tree = native_as(runner), runner.tree("arm64")
    place = native.prepare(tree, ARCH, "/usr/bin/sleep")
    before = tree_hash(place)
    script = """
        sleep 60 & sleep 0.5
        for file in /run/xbuild/native/bin/arch /proc/$!/exe; do
            chmod 4777 $file; chown 1 $file; printf x >>$file; mount -o remount,bind,rw $file
        done
        mount -o remount,bind,rw /run/xbuild/native; umount /run/xbuild/native
        rm /run/xbuild/native/bin/arch; printf x >>/run/xbuild/qemu-aarch64
        arch; kill $!
        """
    assert native.run(tree, "--", "bash", "-c", f"exec 2>&-; {script}").stdout == f"{NATIVE}\n"
    assert tree_hash(place) == before
