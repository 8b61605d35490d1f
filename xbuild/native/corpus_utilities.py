"""The corpus for the small programs of a build: shell, make, coreutils, text tools, compressors.

A case is one command line; ``@`` stands for a directory of the case's own. Programs that tell the
machine, the time or a random number are not here: they stay emulated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from xbuild.native.corpus_case import Case

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.native.corpus_case import Stage

_LONG_DOUBLE = "numbers of more digits than a double has: the host's long double is another"
_HOST = "it names the machine that it was built for"

_MARK = re.compile(r"(?:(?<= )|(?<==)|(?<=^))@(?=/|$| )")
_SHELL = (
    "features.sh",
    "-c 'echo $((1+1)); exit 3'",
    "-n features.sh",
    "-xc 'a=1; for i in 1 2; do echo $a; done'",
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "sh": _SHELL,
    "dash": (*_SHELL, "-c 'set -e; false; echo no'", "-c 'kill -TERM $$'", "-c 'kill -l'"),
    "bash": (
        *(*_SHELL, "features.bash", "numbers.bash", "bytes.bash", "--posix features.sh"),
        *("--posix numbers.bash", "-c 'echo ${BASH_VERSION%(*}'", "-c 'kill -USR1 $$'"),
    ),
    "make": (
        *("-f features.mk", "-f features.mk -n", "-f features.mk -j4 -O second"),
        *(
            "-s -f bytes.mk",
            "-f features.mk none",
            "-k -s -f features.mk",
            "-f features.mk -q second",
        ),
    ),
    "sed": (
        *(
            "-f script.sed words.txt",
            "-n '/alpha/,/zeta/p' words.txt",
            "-E 's/(.)(.)/\\2\\1/g' words.txt",
        ),
        *(
            "-e '/^$/d' -e 's/[0-9]\\+/#/2' words.txt",
            "-s -n '$=' words.txt scalar.c",
            "-u 5q words.txt",
        ),
        *("'s/x/y' words.txt", "'s/[\\x80-\\xff]/H/;y/\\xe9b/ab/' bytes.txt", "-n l bytes.txt"),
    ),
    "grep": (
        *(
            "-n alpha words.txt",
            "-E '^[a-z]+ [^ ]+$' words.txt",
            "-c e words.txt",
            "-v a words.txt",
        ),
        *(
            "-o '[0-9.]*' words.txt",
            "-i UPPER words.txt",
            "-F 'd\\e' words.txt",
            "-w delta words.txt",
        ),
        *(
            "-rlq struct .",
            "-A1 -B1 zeta words.txt",
            "-q nothing words.txt",
            "-P '\\d{3,}' words.txt",
        ),
        *("-a '[^a-z]' bytes.txt", "-c \"$(printf '\\377')\" bytes.txt"),
        *("-x 'alpha.*7' words.txt", "-m1 -H delta words.txt", "-E '(a|b){2}|\\1' words.txt"),
    ),
    "mawk": ("-f program.awk words.txt", "-f bytes.awk bytes.txt"),
    "gawk": (
        *('"$(cat bytes.awk)" bytes.txt', '"$(cat program.awk)" words.txt'),
        "-v x=3 'BEGIN { print x * 2, toupper(\"abc\") }'",
        '\'{ print gensub(/(a)(.)/, "\\\\2\\\\1", "g"), strtonum("0x1f") }\' words.txt',
    ),
    "tar": (
        "--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf @/x.tar words.txt scalar.c",
        "--format=pax --mtime=@7 --owner=0 --group=0 --sort=name -cf @/x.tar scalar.c twice.h",
        '-tvf "$R/tar.0.d/x.tar"',
        '-xf "$R/tar.0.d/x.tar" -C @',
        '-xOf "$R/tar.0.d/x.tar" scalar.c',
        "-tf words.txt",
    ),
    "gzip": ("-9nc loops.c", "-1nc scalar.c", "-t words.txt", "-nc words.txt"),
    "bzip2": ("-9c loops.c", "-1c scalar.c", "-t words.txt"),
    "xz": ("-9c -T1 loops.c", "-0c -T1 scalar.c", "--format=lzma -c words.txt", "-t words.txt"),
    "zstd": ("-19qc scalar.c", "-qc loops.c", "-1qc words.txt", "-tq words.txt"),
    "find": (
        *(". -name '*.c' -newer words.txt", "--version", ". -type f -size -2 -name 's*'"),
        ". -maxdepth 1 -name 'scalar*' -printf '%f %s %m %y\\n' -exec echo {} +",
    ),
    "xargs": ("-n 2 echo <twice.h", "-I% echo [%] <table.f90", "-r false </dev/null"),
    "diff": ("-u scalar.c loops.c", "-q scalar.c scalar.c", "-c twice.h words.txt", "-r . ."),
    "cmp": ("scalar.c loops.c", "-s words.txt words.txt", "-l twice.h words.txt"),
    "diff3": ("twice.h words.txt twice.h",),
    "patch": ("--version",),
    "file": ("--version",),
    "basename": ("/a/b.c .c", "a//"),
    "dirname": ("/a/b/c a /",),
    "cat": ("words.txt scalar.c", "-v bytes.txt", "-A words.txt", "-ns words.txt", "absent"),
    "chmod": ("--version", "-c 640 absent"),
    "cksum": ("words.txt scalar.c", "-a sha256 words.txt"),
    "comm": ("-12 words.txt words.txt", "bytes.txt words.txt"),
    "cp": ("-a words.txt scalar.c @", "-r . @/copy", "absent @", "-v --preserve=mode twice.h @/x"),
    "cut": ("-b2 bytes.txt", "-d' ' -f1,3- words.txt", "-c2-5 words.txt", "-b1 words.txt"),
    "date": ("-u -d @1700000000 +%FT%TZ%j%U", "-u -d '2024-02-29 1 year' +%s"),
    "dd": ("if=words.txt of=@/x bs=7 count=9 skip=1 status=none",),
    "echo": ("-e 'a\\tb' c", "-n x"),
    "env": ("-i A=b env", "A=1 sh -c 'echo $A'"),
    "expand": ("-t4 words.txt",),
    "expr": (
        "3 + 4 '*' 2",
        "abcde : 'a\\(.*\\)e'",
        "length hello",
        "substr hello 2 3",
        "0",
        "x = y",
    ),
    "factor": ("12345678901234567 97",),
    "false": ("",),
    "fmt": ("-w 30 words.txt",),
    "fold": (
        "-w 2 bytes.txt",
        "-w 17 -s words.txt",
    ),
    "head": ("-n 3 words.txt", "-c 11 words.txt scalar.c", "-n -9 words.txt"),
    "install": ("-m 750 words.txt @/x", "-d @/a/b/c", "-D -m 644 twice.h @/p/q/r"),
    "join": ("words.txt words.txt", "bytes.txt bytes.txt"),
    "link": ("absent @/x",),
    "ln": ("-s a/b @/x", "-sf /c @/x", "-sr words.txt @/y", "absent @/z"),
    "ls": ("-1", "-lnR --time-style=+%s scalar.c words.txt", "-d *.c", "-CF", "absent", "-1S"),
    "mkdir": ("-p @/a/b", "-m 700 @/c", "@/x/y"),
    "chgrp": ("absent @/x", "-v 0 absent", "--version"),
    "chown": ("-v 0:0 absent", "absent @/x", "--version"),
    "csplit": ("-f @/part. words.txt /alpha/ /zeta/",),
    "dir": ("-1", "absent"),
    "du": ("--version", "-b --apparent-size words.txt"),
    "mktemp": ("--version", "-d @/absent/a.XXXXXX"),
    "nice": ("-n 5 echo nice",),
    "nohup": ("echo run",),
    "nproc": ("", "--ignore=100"),
    "pathchk": ("-p a/b", "''"),
    "shuf": ("--random-source=scalar.c words.txt", "-n 0 words.txt", "-e -i 1-5"),
    "sync": ("words.txt",),
    "tty": ("",),
    "vdir": ("--version", "absent"),
    "yes": ("--version",),
    "ptx": (
        "bytes.txt",
        "words.txt",
    ),
    "dircolors": ("-b",),
    "basenc": ("--base64url words.txt", "--z85 -d words.txt"),
    "sdiff": ("-w 60 twice.h words.txt", "-s words.txt words.txt"),
    "mkfifo": ("-m 600 @/f",),
    "mv": ("absent @", "--version"),
    "nl": ("-ba words.txt",),
    "numfmt": ("--to=iec 123456789", "--from=si 5K"),
    "od": (
        *("-c twice.h", "-An -tx1 -v words.txt", "-td2 -to4 -tf8 scalar.c", "-tfL scalar.c"),
        *("-t f16 scalar.c", "-Ax -tx8z -w24 bytes.txt", "-tdLuL scalar.c", "-bdf words.txt"),
        "-tfH twice.h",
    ),
    "paste": ("-d, words.txt twice.h", "-s words.txt"),
    "pr": ("-t -2 words.txt",),
    "printenv": ("LC_ALL",),
    "printf": (
        *("'%s %d %x %5.2f %e\\n' abc 42 255 3.14159 1234.5", "'%b|%q\\n' 'a\\tb' 'c d'"),
        *("'%d %i %o %X %c|%-5s|%5.2s\\n' 1 0x1f 8 255 abc d efg", "'%*d|%s\\n' 5 3 x y"),
        *("'%.25g %La' 0.1 0.1", "'%d\\n' 9223372036854775808 \"'A\" 1x", "%b%% '\\101\\x41'"),
        "%.30f 0.1",
    ),
    "pwd": ("-P",),
    "readlink": ("-f ../src/words.txt", "absent"),
    "realpath": ("--relative-to=/run . words.txt",),
    "rm": ("-f absent", "absent", "-r @"),
    "rmdir": ("@", "absent"),
    "seq": (
        *("1 12", "-w 8 11", "5 -2 -5", "-s, 3", "0 .25 2", "-f %.25g 0 0.1 1", "-3 3", "3 1"),
        *("1e17 3 100000000000000011", "999999999999997 999999999999999", "-w -1 9 20"),
    ),
    "sleep": ("0.001",),
    "sort": (
        *(
            "words.txt",
            "bytes.txt",
            "-df bytes.txt",
            "-V bytes.txt",
            "-rn words.txt",
            "-g precise.txt",
            "-k2,2 -u words.txt",
            "-t' ' -k3g words.txt",
            "-c words.txt",
        ),
        *(
            "-V words.txt",
            "-f -s words.txt",
            "-h words.txt",
            "--parallel=2 -R --random-source=scalar.c words.txt",
        ),
    ),
    "split": ("-l 5 words.txt @/part.",),
    "stat": ("-c '%n %s %a %F' words.txt", "-c %h absent"),
    "sum": ("words.txt",),
    "tac": ("words.txt",),
    "tail": ("-n 3 words.txt", "-c 20 words.txt", "-n +10 words.txt"),
    "tee": ("@/x <words.txt",),
    "test": (
        "-f words.txt -a 3 -gt 2",
        "abc = abd",
        "-d words.txt",
        "words.txt -nt absent",
        "1 -eq x",
    ),
    "[": ("-n abc ]", "a = a -o b = c ]", "abc"),
    "timeout": ("5 echo in time", "0.1 sleep 5"),
    "touch": ("-d @1700000000 @/x", "-c @/none"),
    "tr": (
        "a-z A-Z <words.txt",
        "-d aeiou <words.txt",
        "'\\200-\\377' '[x*]' <bytes.txt",
        "-s ' \\n' <words.txt",
        "-cd '[:alnum:]' <words.txt",
    ),
    "true": ("",),
    "truncate": ("-s 100 @/x",),
    "tsort": ("absent",),
    "unexpand": ("-a words.txt",),
    "uniq": ("-i bytes.txt", "-c words.txt", "-d words.txt", "-f1 words.txt"),
    "unlink": ("absent",),
    "wc": ("bytes.txt", "words.txt scalar.c", "-L words.txt", "-mw words.txt"),
}
COMMANDS |= {
    f"{kind}sum": ("words.txt scalar.c", "-b absent")
    for kind in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "b2")
}
COMMANDS |= dict.fromkeys(("base64", "base32"), ("words.txt", "-d words.txt"))

NUANCES: dict[str, tuple[tuple[str, str], ...]] = {
    "bash": (
        ("-c 'echo $HOSTTYPE $MACHTYPE $OSTYPE'", _HOST),
        ("--version", _HOST),
    ),
    "make": (("-s -f host.mk", _HOST), ("--version", _HOST)),
    "numfmt": (("--to=si --format=%.20f 0.1", _LONG_DOUBLE),),
    "mawk": (("-f functions.awk", "the last digit of sin, exp and their like"),),
    "gawk": (
        ('"$(cat functions.awk)"', "the last digit of sin, exp and their like"),
        ("'BEGIN { print ENVIRON[\"AWKLIBPATH\"] }'", _HOST),
    ),
}


_BY_LOCALE = frozenset(
    (*("sh", "dash", "bash", "sed", "grep", "mawk", "gawk", "sort", "tr", "cut", "wc", "ls"),)
)


def utility_cases(tool: str, base: str, path: str) -> Iterator[Case]:
    """Yield the cases of the program ``path``, which goes by the name ``base``."""
    rows = [(line, "") for line in COMMANDS.get(base, ())]
    rows += NUANCES.get(base, ())
    for number, (line, nuance) in enumerate(rows):
        for locale in ("C", "C.UTF-8") if base in _BY_LOCALE and not nuance else ("C",):
            name = f"{tool}.{number}" + ("u" if locale != "C" else "")
            given = _MARK.sub(f'"$O/{name}.d"', line)
            prepared = f'mkdir "$O/{name}.d"\n' if _MARK.search(line) else ""
            text = f'{prepared}LC_ALL={locale}\nrun "{name}" "{path}" {given}'
            stage: Stage = 1 if "$R/" in line else 0
            yield Case(name, (tool,), text, f"{base} {line}", nuance, stage)
