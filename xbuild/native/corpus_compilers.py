"""The corpus for compilers, assemblers and linkers: which command lines are compared.

The command lines are the tree's own: its driver is asked (``gcc -###``) what it would start for
each source and flags, so that a distribution's defaults are in, and each program gets its input
from the emulated one before it. Binutils are in ``corpus_binutils``.
"""

from __future__ import annotations

from collections.abc import Iterator

from xbuild.native.corpus_case import Case

_EVERYWHERE = (
    *("-O0", "-O1", "-O2", "-O3", "-Os", "-Og", "-Ofast"),
    *("-O2 -g", "-O0 -g3", "-O2 -g -gdwarf-4", "-O2 -g -gz=zlib", "-O1 -g -fdebug-types-section"),
    *("-O2 -fPIC", "-O2 -fno-pie", "-O2 -fpic -fvisibility=hidden -ftls-model=global-dynamic"),
    *("-O2 -fstack-protector-strong -fstack-clash-protection", "-O1 -fstack-protector-all"),
    "-O2 -ffunction-sections -fdata-sections -fno-common -fomit-frame-pointer",
    "-O2 -g -flto -frandom-seed=corpus",
    "-O2 -g -flto -ffat-lto-objects -frandom-seed=corpus",
    *("-O1 -pg", "-O1 --coverage -frandom-seed=corpus", "-O1 -finstrument-functions"),
    *("-O1 -fsanitize=undefined", "-O1 -fsanitize=address", "-O2 -fverbose-asm -dA"),
    *("-O2 -ffast-math -funroll-loops -ftree-loop-distribution", "-O3 -fopenmp"),
    "-O2 -Wall -Wextra -Wpedantic -fanalyzer",
)
_BY_ARCHITECTURE = {
    "aarch64": (
        *("-O2 -march=armv8.2-a+fp16+dotprod", "-O3 -march=armv9-a", "-O3 -mcpu=cortex-a72"),
        *("-O2 -mbranch-protection=standard", "-O2 -mno-outline-atomics -march=armv8.1-a"),
        *("-O2 -mcpu=neoverse-n1 -mstrict-align", "-O2 -mcmodel=large -fno-pie"),
    ),
    "arm": (
        *("-O2 -marm", "-O2 -mthumb", "-O3 -march=armv7-a+neon -mfloat-abi=hard"),
        *("-O2 -mcpu=cortex-a53", "-O2 -march=armv7ve+vfpv4", "-Os -mthumb -mtp=soft"),
    ),
    "riscv64": (
        *("-O2 -march=rv64gc_zba_zbb_zbs", "-O3 -march=rv64gcv", "-O2 -mcmodel=medany"),
        *("-Os -msave-restore", "-O2 -mtune=sifive-7-series"),
    ),
    "ppc64le": ("-O3 -mcpu=power9", "-O2 -mcpu=power10"),
    "s390x": ("-O3 -march=z15 -mtune=z16", "-O2 -march=z13"),
    "mips": ("-O2 -march=mips32r2", "-O2 -mips16"),
    "mips64": ("-O2 -march=mips64r2",),
    "x86_64": ("-O3 -march=x86-64-v3", "-O2 -march=x86-64-v4", "-O2 -fcf-protection=full"),
}
_C = {
    "scalar.c": ("-O0 -g -fPIC", "-O2", "-Os -g"),
    "floats.c": ("-O0", "-O2 -g -fPIC", "-O3 -ffast-math", "-O2 -frounding-math -std=c17"),
    "threads.c": ("-O0 -fPIC", "-O2 -g -fPIC", "-O2 -fno-pie", "-O2 -ftls-model=local-dynamic"),
    "layout.c": ("-O0 -g", "-Og -g3 -fPIC", "-O2 -g -gdwarf-4 -gstrict-dwarf", "-O2 -g1"),
    "macros.c": (
        *("-O1 -g3", "-E -dM", "-E -C", "-M -MG", "-O2 -std=c2x -Wall"),
        "-O1 -finput-charset=ISO-8859-15 -fexec-charset=IBM1047",
    ),
    "system.c": ("-O2 -g -fPIE -D_FORTIFY_SOURCE=2", "-O0", "-E", "-O2 -flto -frandom-seed=corpus"),
    "wrong.c": ("-Wall -Wextra", "-fdiagnostics-format=json", "-fmax-errors=2"),
}
_CXX = {
    "templates.cc": ("-O0 -g", "-O2", "-O2 -g -gdwarf-4", "-O3 -std=c++20", "-fsyntax-only -Wall"),
    "classes.cc": (
        *("-O0 -g", "-O2", "-O2 -g -fPIC", "-Os -fno-rtti -fno-exceptions", "-O2 -g -fno-inline"),
        *("-O2 -flto -frandom-seed=corpus", "-O2 -fstack-protector-strong"),
        "-O1 --coverage -frandom-seed=corpus",
    ),
    "modern.cc": ("-std=c++20 -O2 -g", "-std=c++20 -O0"),
    "library.cc": ("-O2 -g", "-O0"),
}
_FORTRAN = {"table.f90": ("-O0 -g", "-O2", "-O3 -fopenmp -g", "-O2 -std=f2008 -Wall")}

LTO_OBJECT = "loops.c.18"
FAT_LTO_OBJECT = "loops.c.19"
COMPRESSED_OBJECT = "loops.c.10"

_DRIVER_COMMANDS = {
    "g++": (
        "classes.cc",
        ("-O2 -g -c", "-O0 -S", "-E", "-M", "-std=c++20 -O2 -c -fPIC -pthread"),
    ),
    "gfortran": ("table.f90", ("-O2 -g -c", "-O0 -S", "-O2 -g")),
    "cpp": ("macros.c", ("", "-dM", "-M -MG")),
    "gcc": (
        "layout.c",
        (
            *("-O2 -g -c", "-O0 -g3 -c -fPIC", "-S -O2", "-E", "-M -MD"),
            *("-O2 -c -pipe -Wall -Wextra", "-O2 -g -shared -fPIC", "-O2 -r -nostdlib"),
            *("-c -O2 -save-temps=obj", "-c @options.rsp", "-Wp,-DX=1 -Wa,--noexecstack -c"),
            *("-B. -c -O2", "-specs=corpus.specs -c"),
            *("-x c -c -include twice.h", "-c -O2 -DNAME='\"a b\"' -Itests -isystem ."),
        ),
    ),
}
_SAYING = "what it says of itself"
_LOOSE = "-Wl,--unresolved-symbols=ignore-all,-e,0"
_LINKING = "where and how it links"
_LINKS = (
    *("-O2 -g -fPIC -shared", "-O2 -g -fPIC -shared -lm", f"-O2 -nostartfiles -pie -g {_LOOSE}"),
    *("-shared -pthread -fopenmp -fPIC -Wl,-z,now", f"-static -nostartfiles -O1 {_LOOSE}"),
    f"-no-pie -nostartfiles -Wl,--gc-sections -Wl,-rpath,/opt/lib -L. {_LOOSE}",
    "-shared -nostdlib -fPIC",
    *("-shared -fPIC -Wl,-soname,x.so.1 -Wl,--version-script=/dev/null -s", "-r -nostdlib -g"),
    *("-shared -fPIC -flto -frandom-seed=corpus -O2", "-shared -fPIC -fuse-ld=bfd -static-libgcc"),
    *("-shared -fPIC -nodefaultlibs -lc", "-shared -fPIC --coverage -frandom-seed=corpus -O1"),
)
_TOLD = (
    *("-v", "-### -O2 -g -c layout.c", "-### -shared -pthread -fopenmp layout.c"),
    *("--version", "-dumpspecs", "-print-search-dirs", "-dumpmachine", "-dumpversion"),
    *("-print-multiarch", "-print-file-name=libc.so", "-print-prog-name=ld", "-print-sysroot"),
    *("--help=target", "-print-libgcc-file-name"),
)
_LTO_LINKS = (
    ("-O2 -g -flto -shared -fPIC -frandom-seed=corpus", LTO_OBJECT),
    ("-O2 -flto=2 -shared -fPIC -frandom-seed=corpus -flto-partition=max", LTO_OBJECT),
    ("-O2 -flto -r -nostdlib -flinker-output=nolto-rel -frandom-seed=corpus", FAT_LTO_OBJECT),
)


def drivers_of(driver: str, version: str, triplet: str) -> str:
    """Return the names under which one version's driver may be installed, the surest first."""
    return f"{triplet}-{driver}-{version} {driver}-{version} {driver}"


def compiler_cases(
    version: str, triplet: str, architecture: str, has: frozenset[str]
) -> Iterator[Case]:
    """Yield the cases of one version of GCC: of those of cc1, cc1plus and f951 that it ``has``.

    Each is followed by the assembler's case that reads what it made.
    """
    loops = (*_EVERYWHERE, *_BY_ARCHITECTURE.get(architecture, ()))
    languages = (
        ("cc1", "gcc", {"loops.c": loops, **_C}),
        ("cc1plus", "g++", _CXX),
        ("f951", "gfortran", _FORTRAN),
    )
    for tool, driver, sources in languages:
        drivers = drivers_of(driver, version, triplet)
        for source, flag_sets in sources.items() if tool in has else ():
            for number, flags in enumerate(flag_sets):
                yield from _compile(f"{tool}-{version}.{source}.{number}", drivers, source, flags)
    if "cc1" in has:
        name, drivers = f"as.{version}.generic", drivers_of("gcc", version, triplet)
        text = f'plan {name} "{drivers}" -g -c generic.s -o "$O/{name}.o"'
        text = f"{text}\nassemble {name} {name} generic.s"
        yield Case(name, ("as",), text, "generic.s -g")


def _compile(name: str, drivers: str, source: str, flags: str) -> Iterator[Case]:
    program, _, rest = name.partition("-")
    tool = f"{program}@{rest.partition('.')[0]}"
    title = f"{source} {flags}"
    if flags.startswith(("-E", "-M", "-fsyntax")):
        output = "" if flags.startswith("-fsyntax") else f' -o "$O/{name}.i"'
        text = f'plan {name} "{drivers}" {flags} {source}{output}\npreprocess {name} {program}'
        yield Case(name, (tool,), text, title)
        return
    modules = f'-J "$O/{name}.d" ' if program == "f951" else ""
    text = f'plan {name} "{drivers}" {modules}{flags} -c {source} -o "$O/{name}.o"'
    if modules:
        text = f'mkdir "$O/{name}.d"\n{text}'
    yield Case(name, (tool,), f"{text}\ncompile {name} {program}", title)
    if source != "wrong.c":
        yield Case(f"as.{name}", ("as",), f"assemble as.{name} {name}", title)


def driver_cases(tool: str, base: str, path: str) -> Iterator[Case]:
    """Yield cases of a compiler driver; what it only tells people is a nuance."""
    source, commands = _DRIVER_COMMANDS.get(base, _DRIVER_COMMANDS["gcc"])
    rows = (*((flags, "") for flags in commands), *((f, _LINKING) for f in _LINKS))
    for number, (flags, nuance) in enumerate(rows if base != "cpp" else rows[: len(commands)]):
        name = f"{tool}.{number}"
        output = "" if base == "cpp" or flags.startswith("-M") else f' -o "$O/{name}.o"'
        line = f"run {name} {path} {flags} {source}{output}"
        yield Case(name, (tool,), line, f"{flags} {source}", nuance, stage=3)
    for number, flags in enumerate(_TOLD):
        name = f"{tool}.told.{number}"
        yield Case(name, (tool,), f"run {name} {path} {flags}", flags, _SAYING, stage=3)


def lto_cases(version: str, triplet: str) -> Iterator[Case]:
    """Yield links with LTO: linker, plugin, lto-wrapper, lto1 and assembler together."""
    for number, (flags, made) in enumerate(_LTO_LINKS):
        name = f"lto1-{version}.{number}"
        given = f'"$R/as.cc1-{version}.{made}.o" -o "$O/{name}.out"'
        text = f'link_whole {name} "{drivers_of("gcc", version, triplet)}" {flags} {given}'
        tools = (f"lto1@{version}", f"lto-wrapper@{version}")
        yield Case(name, tools, text, f"loops.c {flags}", stage=3)
