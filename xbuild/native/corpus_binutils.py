"""The corpus for linkers, archivers and object file tools, which read what compilers made."""

from __future__ import annotations

from collections.abc import Iterator

from xbuild.native.corpus_case import Case
from xbuild.native.corpus_compilers import COMPRESSED_OBJECT, LTO_OBJECT, drivers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.native.corpus_case import Stage

GCC_WRAPPERS = frozenset(("gcc-ar", "gcc-nm", "gcc-ranlib"))
LINKERS = ("ld.bfd", "ld.gold", "ld.lld")

_OBJECTS = {
    "%main%": "system.c.0",
    "%scalar%": "scalar.c.0",
    "%floats%": "floats.c.1",
    "%threads%": "threads.c.1",
    "%layout%": "layout.c.1",
    "%compressed%": COMPRESSED_OBJECT,
    "%lto%": LTO_OBJECT,
}
_LINKS = (
    "%main% -lm",
    "-static -Wl,-Map=@.map %main% -lm",
    "-shared -g -Wl,--hash-style=both -Wl,-z,now %scalar% %floats% %layout%",
    "-no-pie -Wl,--gc-sections -Wl,-O1 -Wl,--as-needed %main% %floats% -lm",
    "-r -nostdlib %scalar% %threads% %layout%",
    "-shared -Wl,--build-id=sha1 -Wl,-soname,libcorpus.so.1 %layout% %scalar%",
    "-shared -Wl,--compress-debug-sections=zlib %layout%",
    "%layout%",
    "-shared -Wl,-z,defs -Wl,--trace %threads%",
)

# The linker's messages show by what name collect2 found it.
_FAILING = dict.fromkeys(_LINKS[-2:], "by what name it looks for a linker on PATH")

# What stands before a semicolon prepares, and is not compared.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "ar": (
        "ar rcD @.a %scalar% %floats% %lto%",
        "ar rcsD @.a %scalar% %layout% %threads%",
        'ar t "$R/ar.1.a"',
        'ar tvO "$R/ar.1.a"',
        "ar rcTD @.a %scalar%",
        "ar x words.txt",
    ),
    "ranlib": ('cp "$R/ar.0.a" @.a; ranlib -D @.a',),
    "nm": (
        *("nm %scalar%", "nm -A -n -S %layout%", "nm -D %shared%", 'nm "$R/ar.1.a"'),
        "nm %lto%",
    ),
    "strip": (
        "strip -o @.out %linked%",
        "strip --strip-debug -o @.out %shared%",
        "strip --strip-unneeded -o @.o %layout%",
        "strip -o @.none words.txt",
        'cp "$R/ar.1.a" @.a; strip -g -D @.a',
    ),
    "objcopy": (
        "objcopy --only-keep-debug %shared% @.debug",
        "objcopy -O binary -j .rodata %floats% @.bin",
        "objcopy --compress-debug-sections=zlib %layout% @.o",
        "objcopy --decompress-debug-sections %compressed% @.o",
        "objcopy --rename-section .data=.moved --prefix-symbols=p_ %scalar% @.o",
        "objcopy -O srec %floats% @.srec",
    ),
    "objdump": (
        *("objdump -d -r %scalar%", "objdump -h -t -s %floats%", "objdump -g %layout%"),
        "objdump -p %shared%",
    ),
    "readelf": ("readelf -aW %layout%", "readelf -w %layout%", "readelf -aW %linked%"),
    "size": ("size %scalar% %floats%", "size -A %layout%"),
    "strings": ("strings -a %scalar%", "strings -t x words.txt"),
    "addr2line": ("addr2line -f -e %layout% 0x0 0x10 0x40",),
    "c++filt": ("c++filt _ZN6corpus3useEi _ZTV6Square _ZNSt6vectorIiSaIiEE9push_backERKi",),
    "elfedit": ("cp %scalar% @.o; elfedit --output-osabi=Linux @.o",),
}
_COMMANDS |= {
    "gcc-ar": ("gcc-ar rcsD @.a %scalar% %lto%",),
    "gcc-nm": ("gcc-nm %lto%", "gcc-nm %scalar%"),
    "gcc-ranlib": ('cp "$R/ar.0.a" @.a; gcc-ranlib -D @.a',),
}


def link_cases(version: str, triplet: str, paths: dict[str, str]) -> Iterator[Case]:
    """Yield the links of one version's driver, by collect2 and by each linker of ``paths``."""
    drivers = drivers_of("gcc", version, triplet)
    for tool in (f"collect2@{version}", *LINKERS):
        for number, line in enumerate(_LINKS if tool in paths else ()):
            if tool == "ld.gold" and "-Map" in line:
                continue  # it writes how much memory it took
            name = f"{tool.replace('@', '-')}-{version}.{number}"
            replaced = "" if tool.startswith("collect2") else paths[tool]
            text = f'plan {name} "{drivers}" {_fill(line, name, version)} -o "$O/{name}.out"'
            nuance = _FAILING.get(line, "") if not replaced else ""
            yield Case(name, (tool,), f"{text}\nlink {name} {replaced}", line, nuance, stage=1)


def binutils_cases(version: str, paths: dict[str, str]) -> Iterator[Case]:
    """Yield cases on what one version's cases made; ``paths`` has each program's path by name."""
    for tool, lines in _COMMANDS.items():
        for number, line in enumerate(lines if tool in paths else ()):
            name = f"{tool}.{number}"
            before, _, command = line.rpartition("; ")
            prepared = f"{_fill(before, name, version)}\n" if before else ""
            arguments = _fill(command.removeprefix(tool), name, version)
            reads_more = "linked%" in line or "%shared" in line or "$R/" in line
            stage: Stage = 3 if tool in GCC_WRAPPERS else 2 if reads_more else 1
            text = f"{prepared}run {name} {paths[tool]}{arguments}"
            yield Case(name, (tool,), text, line, stage=stage)


def _fill(line: str, name: str, version: str) -> str:
    for mark, made in _OBJECTS.items():
        line = line.replace(mark, f'"$R/as.cc1-{version}.{made}.o"')
    line = line.replace("%linked%", f'"$R/ld.bfd-{version}.0.out"')
    return line.replace("%shared%", f'"$R/ld.bfd-{version}.2.out"').replace("@", f"$O/{name}")
