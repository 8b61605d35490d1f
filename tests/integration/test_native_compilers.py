"""Builds with native compilers leave what emulated ones leave, whatever they are told to do."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from tests.capability import require
from tests.native_trees import CompilerTree, write_files
from tests.runs import Runner
from xbuild.record import HostPath

HELLO = '#include <stdio.h>\nint main(void) { printf("%s %.3f\\n", NAME, 0.1 + X); return 0; }\n'
HEADER = "#ifndef X\n#define X 7\n#endif\nstatic inline int seven(void) { return X; }\n"
USER = '#include "header.h"\nint value(void) { return seven() * 3; }\n'
DIGITS = random.Random(1)
NUMBERS = "".join(
    f"printf '{form} %g\\n' -{DIGITS.random()}{DIGITS.randrange(10**20)}e{power} .7\n"
    for form in ("%.36e", "%.45f", "%.40g", "%a", "%+.30a", "%50.33G")
    for power in range(-4950, 4933, 549)
)
BYTES = """
declare -A all
for ((i = 1; i < 256; i++)); do printf -v key "\\\\$(printf %o $i)"; all[$key]=$i; done
echo "${all[@]}" "${!all[@]}" | cksum
printf '%s\\n' "${!all[@]}" | gawk '{ n[$1] } END { for (k in n) printf "%s", k }' | cksum
printf '$(info $(sort z \\351 a \\377 b))all:;\\n' >sort.mk; make -sf sort.mk | od -An -c
"""
FILES = {"hello.c": HELLO, "header.h": HEADER, "user.c": USER}
FILES |= {"numbers.bash": NUMBERS, "bytes.bash": BYTES}
PLUGIN = """
int plugin_is_GPL_compatible;
extern int puts(const char *);
int plugin_init(void *info, void *version) { puts("the plugin runs"); return 0; }
"""
CONFIG_GUESS = "/usr/share/misc/config.guess"
WRAPPER = '#!/bin/sh\necho "$0" >>/mnt/calls\nexec /usr/bin/{} "$@"\n'


@pytest.fixture
def tree(compiler_path: HostPath, root: Runner) -> CompilerTree:
    return CompilerTree(compiler_path, root)


@pytest.fixture
def work(tmp_path: Path) -> HostPath:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return HostPath(str(tmp_path))


def test_the_compilers_are_native(tree: CompilerTree) -> None:
    """What the other tests compare is indeed the native tools' output."""
    done = tree.runner.run(
        "--native", "--dry-run", "--json", tree.path, "true", env=tree.environment()
    )
    (step,) = [s for s in json.loads(done.stdout)["steps"] if s["step"] == "Substitute"]
    names = {os.path.basename(each["path"]) for each in step["substitutions"]}
    assert {"cc1", "cc1plus", "lto1", "aarch64-linux-gnu-as", "aarch64-linux-gnu-ld.bfd"} <= names
    assert {each["verdict"] for each in step["substitutions"]} == {"identical"}


SCRIPTS = {
    "program": "gcc -O2 -g -DNAME='\"x\"' -DX=1 hello.c -o hello && ./hello",
    "shared library": "gcc -O2 -g -fPIC -shared user.c -o libuser.so && nm -D libuser.so",
    "archive": "gcc -c user.c && ar rcs libuser.a user.o && ranlib libuser.a && strip -g libuser.a",
    "c++": "cp user.c user.cc; g++ -O2 -g -c user.cc && g++ -shared -g -fPIC user.cc -o user.so",
    "lto": "gcc -O2 -flto -frandom-seed=x -fPIC -shared user.c -o user.so",
    "response file": "echo '-O2 -g -c user.c -DX=\"11\"' >options; gcc @options",
    "own specs": "printf '*cc1_options:\\n+ -fno-ident\\n\\n' >own; gcc -specs=own -c user.c",
    "precompiled header": (
        "gcc -O1 header.h -o header.h.gch && gcc -O1 -Winvalid-pch -c user.c"
        " && test -s header.h.gch && rm header.h.gch"
    ),
    "march=native": (
        "gcc -O3 -march=native -c user.c && gcc -mcpu=native -S -g user.c -o cpu.s"
        " && gcc -mtune=native -c user.c -o tuned.o"
    ),
    "a long argument": (
        'long=$(head -c 130900 /dev/zero | tr \'\\0\' a); gcc -DX=1 -DNAME="\\"$long\\"" -O1'
        " -S hello.c && wc -c <hello.s"
    ),
    "pipes": "gcc -pipe -O2 -c user.c && gcc -E user.c | gcc -x c -S - -o piped.s",
    "chroot": "chroot / /bin/sh -c 'cd /mnt && gcc -O2 -c user.c'",
    "make": "printf 'all: user.o\\n\\t@echo $(MAKE_HOST) $(CC)\\n' >Makefile; make -s",
    "what it says": "gcc -v 2>&1; gcc -dumpspecs; gcc -print-search-dirs; bash --version; make -v",
    "numbers in bash": "bash numbers.bash",
    "bytes in bash, gawk and make": "bash bytes.bash",
    "character sets": (
        "printf 'char a[] = \"\\344\";\\n' >latin.c; gcc -finput-charset=ISO-8859-1 -S latin.c"
        " && gcc -fexec-charset=IBM1047 -O1 -c hello.c -DX=1 -DNAME='\"A\"'"
    ),
    "libraries of gawk": (
        'printf \'@load "ordchr"\\nBEGIN { print ord("A") }\' >a.awk; gawk -f a.awk'
        " && gawk 'BEGIN { print ENVIRON[\"AWKLIBPATH\"] }'"
    ),
    "what the machine is": "uname -m; arch; bash -c 'echo $HOSTTYPE $MACHTYPE'; gcc -dumpmachine",
    "a mistake": "echo 'int f(' >bad.c; gcc -c bad.c; test $? = 1; gcc absent.c; test $? = 1",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_leaves_what_emulation_leaves(tree: CompilerTree, work: HostPath, name: str) -> None:
    tree.both(work, FILES, SCRIPTS[name])


def test_users_are_those_of_the_tree_s_files(tree: CompilerTree, work: HostPath) -> None:
    """By a module of the C library, which a native program takes from the set."""
    script = (
        "echo 'passwd: compat' >/etc/nsswitch.conf; echo x >a; chown games:mail a; echo ~bin"
        "; stat -c '%U %G' a; tar -cf - a | tar -tvf - | cut -d' ' -f2; rm a"
    )
    assert "games/mail" in tree.both(work, {}, script, "--ephemeral")


def test_precompiled_header_of_the_other_kind_is_passed_over(
    tree: CompilerTree, work: HostPath
) -> None:
    """It is an image of the compiler's memory; each finds that another program made it."""
    place = write_files(f"{work}/mixed", FILES)
    use = "gcc -O1 -Winvalid-pch -c user.c"
    passed_over = "created by a different GCC executable"
    tree.run(place, "gcc -O1 -c user.c -o plain.o && gcc -O1 header.h -o header.h.gch")
    native = tree.run(place, f"{use} -o native.o && gcc -O1 header.h -o header.h.gch", "--native")
    assert passed_over in native.stderr
    assert passed_over in tree.run(place, f"{use} -o emulated.o").stderr
    objects = {Path(place, f"{name}.o").read_bytes() for name in ("plain", "native", "emulated")}
    assert len(objects) == 1


def test_plugin_is_loaded_by_the_tree_s_own_compiler(tree: CompilerTree, work: HostPath) -> None:
    script = (
        "gcc -shared -fPIC plugin.c -o plugin.so && gcc -fplugin=./plugin.so -O2 -c user.c"
        " && g++ -fplugin=./plugin.so -x c++ -c user.c -o user2.o"
    )
    said = tree.both(work, {**FILES, "plugin.c": PLUGIN}, script)
    assert said.count("the plugin runs") == 2


@pytest.mark.parametrize(
    "script",
    [
        "PATH=/mnt:$PATH gcc -O2 -c user.c",
        "CC=/mnt/gcc; $CC -O2 -c user.c",
    ],
)
def test_compiler_wrapper_is_called(tree: CompilerTree, work: HostPath, script: str) -> None:
    """As colorgcc or a ccache of the tree would stand there."""
    tree.both(work, {**FILES, "gcc": WRAPPER.format("gcc")}, script)
    assert Path(work, "native/calls").read_text() == "/mnt/gcc\n"


@pytest.mark.parametrize(
    "script",
    [
        "gcc -B/mnt/ -c user.c",
        "COMPILER_PATH=/mnt gcc -c user.c",
        "PATH=/mnt:$PATH gcc -c user.c",
    ],
)
def test_own_assembler_is_called(tree: CompilerTree, work: HostPath, script: str) -> None:
    """A native driver must look for an assembler where the tree's own does."""
    tree.both(work, {**FILES, "as": WRAPPER.format("as")}, script)
    assert Path(work, "native/calls").read_text().split("/")[-1] == "as\n"


def test_own_linker_is_called(tree: CompilerTree, work: HostPath) -> None:
    script = "PATH=/mnt:$PATH gcc -shared -fPIC user.c -o user.so"
    tree.both(work, {**FILES, "ld": WRAPPER.format("ld")}, script)
    assert Path(work, "native/calls").read_text() == "/mnt/ld\n"


def test_replaced_compiler_is_emulated_at_once(tree: CompilerTree, work: HostPath) -> None:
    """As when a package manager upgrades it in the middle of a run: by identity, not by path."""
    cc1 = "$(gcc -print-prog-name=cc1)"
    script = (
        f"p={cc1}; gcc -O2 -c user.c -o first.o && printf '#!/bin/sh\\necho replaced >&2\\n' >new"
        " && chmod +x new && mv new $p && gcc -O2 -c user.c -o /tmp/second.o"
    )
    os.makedirs(f"{work}/native")
    shutil.copy(_write(work, "user.c", USER), f"{work}/native")
    shutil.copy(_write(work, "header.h", HEADER), f"{work}/native")
    done = tree.run(f"{work}/native", script, "--native", "--ephemeral")
    assert "replaced" in done.stderr
    assert os.path.exists(f"{work}/native/first.o")


def _write(place: str, name: str, content: str) -> str:
    with open(f"{place}/{name}", "w") as file:
        file.write(content)
    return f"{place}/{name}"


def test_emulated_and_native_programs_start_each_other(tree: CompilerTree, work: HostPath) -> None:
    """make (native) starts bash (emulated), which starts sed (native), and so on."""
    makefile = (
        "SHELL := /bin/bash\nall: ; @echo a b | sed s/a/c/ | bash -c 'cat; uname -m; env -i arch'\n"
    )
    said = tree.both(work, {"Makefile": makefile}, "make -s | tr a-z A-Z")
    assert said == "C B\nAARCH64\nAARCH64\n"


def test_no_compiler_of_this_machine_is_needed(tree: CompilerTree) -> None:
    """The set is self-contained: its loader and libraries are its own."""
    with open(f"{tree.toolset.root}/{_native_of(tree, 'cc1')}", "rb") as file:
        (loader,) = [s for s in ELFFile(file).iter_segments() if isinstance(s, InterpSegment)]
        assert loader.get_interp_name().startswith("/run/xbuild/native/")


def test_config_guess_finds_the_tree_s_machine(tree: CompilerTree, work: HostPath) -> None:
    """GNU's own script, which asks uname, and the compiler for the C library."""
    require("autotools-dev", os.path.exists(CONFIG_GUESS), f"no {CONFIG_GUESS} on this host")
    with open(CONFIG_GUESS, encoding="utf-8") as file:
        said = tree.both(
            work, {"config.guess": file.read()}, "./config.guess; CC=gcc ./config.guess"
        )
    assert said.split() == ["aarch64-unknown-linux-gnu"] * 2


def test_second_version_of_gcc_is_not_taken_for_the_first(
    tree: CompilerTree, work: HostPath
) -> None:
    """Two in one tree, of which the set knows one, both by the same name."""
    script = (
        "own=$(gcc -print-prog-name=cc1); other=${own%/14/cc1}/13; mkdir $other; (cat $own; echo)"
        " >$other/cc1; chmod 755 $other/cc1; mkfifo in; for each in $own $other/cc1; do"
        " $each -quiet - -o /dev/null <in & exec 3>in; sleep 1; readlink /proc/$!/exe; exec 3>&-;"
        " wait; done"
    )
    shown = tree.run(write_files(f"{work}/both", {}), script, "--native", "--ephemeral").stdout
    first, second = shown.split()
    assert first.startswith("/run/xbuild/native/")
    assert not second.startswith("/run/xbuild/native/")


def _native_of(tree: CompilerTree, name: str) -> str:
    return next(t.native for t in tree.toolset.tools if os.path.basename(t.path) == name)
