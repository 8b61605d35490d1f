"""The corpus for compilers that are cross compilers as they are: clang, rustc, Go's tools."""

from __future__ import annotations

from collections.abc import Iterator

from xbuild.native.corpus_case import Case

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.native.corpus_case import Stage

_CLANG: dict[str, tuple[str, ...]] = {
    "loops.c": (
        *("-O0 -c", "-O1 -c", "-O2 -c", "-O3 -c", "-Os -c", "-Oz -c", "-Ofast -c", "-O2 -g -c"),
        *("-O0 -g3 -c", "-O2 -g -gdwarf-4 -c", "-O2 -fPIC -c", "-O2 -S", "-O2 -emit-llvm -S"),
        *(
            "-O2 -emit-llvm -c",
            "-O2 -flto -c",
            "-O2 -flto=thin -c",
            "-O1 -pg -c",
            "-O1 --coverage -c",
        ),
        *("-O1 -fsanitize=undefined -c", "-O1 -fsanitize=address -c", "-O3 -ffast-math -c"),
        *("-O2 -fstack-protector-strong -c", "-O2 -ffunction-sections -fdata-sections -c"),
        *("-O2 -Wall -Wextra -Weverything -c", "--analyze -o -", "-O2 -fno-integrated-as -c"),
        *("-O2 -fprofile-instr-generate -fcoverage-mapping -c", "-O2 -Rpass=.* -c"),
    ),
    "constants.c": ("-O1 -c", "-O2 -ffast-math -c"),
    "floats.c": ("-O0 -c", "-O2 -g -fPIC -c", "-O2 -frounding-math -std=c17 -c"),
    "scalar.c": ("-O0 -g -c", "-O2 -c"),
    "threads.c": ("-O2 -g -fPIC -c", "-O0 -c"),
    "layout.c": ("-O0 -g -c", "-Og -g3 -c", "-O2 -g -gsplit-dwarf -c"),
    "macros.c": ("-E -dM", "-E -C", "-M -MG"),
    "system.c": ("-O2 -g -D_FORTIFY_SOURCE=2 -c", "-E", "-O2 -c -pipe -MMD"),
    "wrong.c": ("-Wall -Wextra -c", "-fsyntax-only -fdiagnostics-format=msvc"),
    "generic.s": ("-g -c",),
    "templates.cc": ("-O0 -g -c", "-O2 -c", "-O2 -std=c++20 -c"),
    "classes.cc": ("-O2 -g -c", "-O2 -fno-exceptions -fno-rtti -c", "-O2 -flto -c"),
    "modern.cc": ("-std=c++20 -O2 -g -c",),
    "library.cc": ("-O2 -g -c", "-O0 -c"),
}
_CLANG_BY_ARCHITECTURE = {
    "aarch64": (
        *(
            "-O2 -march=armv8.2-a+fp16+dotprod -c",
            "-O3 -march=armv9-a -c",
            "-O3 -mcpu=neoverse-n1 -c",
        ),
        *("-O2 -mbranch-protection=standard -c", "-O2 -mno-outline-atomics -c"),
    ),
    "arm": ("-O2 -marm -c", "-O2 -mthumb -c", "-O3 -march=armv7-a -mfpu=neon -c"),
    "riscv64": ("-O2 -march=rv64gc_zba_zbb -c", "-O3 -march=rv64gcv -c"),
}
# With more than one job, and with its linker, clang starts itself and others anew.
_CLANG_LINKS = (
    *("-O2 -g system.c -lm", "-O2 -shared -fPIC layout.c scalar.c", "-static -O1 system.c -lm"),
    *("-save-temps=obj -O2 -c scalar.c", "-O2 -r -nostdlib scalar.c loops.c"),
    "--driver-mode=g++ -O2 -shared -fPIC classes.cc",
)
# An emulated rustc takes half a minute for a page of source: few cases, of much each.
_RUST = {
    "crate.rs": (
        "-O -g -C codegen-units=2 --emit=asm,llvm-ir,obj,metadata,link,dep-info",
        "-C incremental=/tmp/corpus --emit=link,metadata",
        "-C opt-level=s -C panic=abort -C embed-bitcode=yes",
    ),
    "program.rs": ("-O -C debuginfo=1",),
    "wrong.rs": ("--error-format=json",),
}
_GO = {
    "compile": (
        *("-p corpus -complete package.go", "-p corpus -complete -N -l package.go"),
        *(
            "-p corpus -pack -trimpath /run package.go",
            "-p corpus -S package.go",
            "-race package.go",
        ),
        *("-p corpus -m=2 -complete package.go", "-p corpus -dwarf=false package.go", "absent.go"),
    ),
    "pack": ('t "$R/go-compile.2.o"', 'p "$R/go-compile.2.o" __.PKGDEF', "t words.txt"),
    "buildid": ('"$R/go-compile.2.o"', "words.txt"),
    "cgo": ("foreign.go", "-godefs foreign.go"),
}


def language_cases(key: str, path: str, architecture: str) -> Iterator[Case]:
    """Yield the cases of one such compiler of the tree; none for other programs."""
    name = path.rpartition("/")[2]
    if name == "clang":
        yield from _clang_cases(key, path, architecture)
    elif name == "rustc":
        yield from _rust_cases(key, path)
    elif key.startswith("go-"):
        yield from _go_cases(key, name, path)


def _clang_cases(key: str, path: str, architecture: str) -> Iterator[Case]:
    sources = {
        **_CLANG,
        "loops.c": (*_CLANG["loops.c"], *_CLANG_BY_ARCHITECTURE.get(architecture, ())),
    }
    rows = [(flags, source) for source, each in sources.items() for flags in each]
    number = 0
    for flags, source in rows:
        name = f"{key}.{number}"
        number += 1
        output = (
            ""
            if "-o " in flags or flags.startswith(("-E", "-M", "-fsyntax"))
            else f' -o "$O/{name}.o"'
        )
        yield Case(name, (key,), f"run {name} {path} {flags} {source}{output}", f"{flags} {source}")
    for flags in _CLANG_LINKS:
        name = f"{key}.{number}"
        number += 1
        yield Case(name, (key,), f'run {name} {path} {flags} -o "$O/{name}.o"', flags, stage=3)


def _rust_cases(key: str, path: str) -> Iterator[Case]:
    number = 0
    for source, each in _RUST.items():
        for flags in each:
            name = f"{key}.{number}"
            number += 1
            kind = "" if "--crate-type" in flags or source != "crate.rs" else "--crate-type=lib "
            # Linking starts what the set has besides.
            stage: Stage = (
                3 if source == "program.rs" or "cdylib" in flags or "--test" in flags else 0
            )
            given = f'--edition=2021 {kind}{flags} {source} --out-dir "$O/{name}.d"'
            text = f'mkdir "$O/{name}.d"\nrun {name} {path} {given}'
            yield Case(name, (key,), text, f"{flags} {source}", stage=stage)


def _go_cases(key: str, name: str, path: str) -> Iterator[Case]:
    for number, line in enumerate(_GO.get(name, ())):
        case = f"{key}.{number}"
        stage: Stage = 3 if name == "cgo" else 1 if "$R/" in line else 0
        text = f"run {case} {path} {line}"
        if name == "compile":
            text = f'run {case} {path} -o "$O/{case}.o" {line}'
        elif name == "cgo":
            # Objects that it leaves name files that it made for a moment.
            kept = f"/tmp/{case}.d/*.go /tmp/{case}.d/*.[ch]"
            made = f'mkdir "$O/{case}.d"\ncp {kept} "$O/{case}.d" 2>/dev/null'
            text = f"run {case} {path} -objdir /tmp/{case}.d {line}\n{made}"
        yield Case(case, (key,), _with_go(path, text), f"{name} {line}", stage=stage)
    if name == "link":
        # An emulated go compiles its runtime for minutes: once, for all of its tools.
        tools = tuple(f"go-{each}" for each in ("asm", "buildid", "compile", "link"))
        go = f"{path.partition('/pkg/tool/')[0]}/bin/go"
        text = f'run go-build {go} build -buildvcs=false -o "$O/go-build.out" program.go'
        yield Case("go-build", tools, _with_go(path, text), "go build", stage=3)


def _with_go(path: str, command: str) -> str:
    root = path.partition("/pkg/tool/")[0]
    return f"export HOME=/tmp GOCACHE=/tmp/go-cache GOROOT={root}\n{command}"
