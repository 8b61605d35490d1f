"""Small scripts of a set that start a native compiler as the tree's own would have been.

They stand in for the tree's program at exec, and run in the set's own dash. Where only the tree's
program can do what is asked, a script starts that: a copy in the set, which as a file of its own
has no native one that stands in for it, and so is emulated.
"""

from __future__ import annotations

import re

from xbuild.errors import ProviderUnsuitable
from xbuild.toolset.manifest import INSIDE

EMULATED = "emulated"
"""Where in a set's root copies of the tree's own programs are."""

GO_VARIABLES = (
    *("GOARCH", "GO386", "GOAMD64", "GOARM", "GOARM64", "GOMIPS", "GOMIPS64", "GOPPC64"),
    *("GORISCV64", "GOWASM"),
)
"""What Go's tools are told of the machine by; internal/buildcfg has a default for each."""

# rustc loads procedural macros, libraries of the target, from where crates are looked for.
_RUSTC = """\
before=
for word do
    case $before$word in
    -L-*|-L) place= ;;
    -L*) place=${{word#-L}} ;;
    *) place= ;;
    esac
    case $place in
    native=*|framework=*) place= ;;
    dependency=*|crate=*|all=*) place=${{place#*=}} ;;
    esac
    [ -z "$place" ] || for library in "$place"/*.so; do
        [ ! -e "$library" ] || exec {emulated} "$@"
    done
    case $word in -L) before=-L ;; *) before= ;; esac
done
exec {native} --sysroot=/usr --target={target} "$@"
"""


def rustc_launcher(shell: str, native: str, emulated: str, target: str) -> str:
    """Return the script that starts rustc for ``target``; paths are in the set's root.

    Raises ProviderUnsuitable for what names no target.
    """
    if not re.fullmatch(r"[a-z0-9_.-]+", target):
        raise ProviderUnsuitable(f"its rustc compiles for {target!r}, which names no target")
    places = {"native": f"{INSIDE}/{native}", "emulated": f"{INSIDE}/{emulated}"}
    return f"#!{INSIDE}/{shell}\n{_RUSTC.format(**places, target=target)}"


def go_launcher(shell: str, native: str, machine: dict[str, str]) -> str:
    """Return the script that starts a tool of Go, told the tree's ``machine`` unless it is told.

    Raises ProviderUnsuitable for what is no machine's description.
    """
    if "GOARCH" not in machine or not all(
        name in GO_VARIABLES and re.fullmatch(r"[A-Za-z0-9.,_]*", value)
        for name, value in machine.items()
    ):
        raise ProviderUnsuitable(f"its go describes the machine in an unexpected way: {machine}")
    defaults = "".join(f': "${{{name}:={value}}}"\n' for name, value in machine.items())
    return (
        f'#!{INSIDE}/{shell}\n{defaults}export {" ".join(machine)}\nexec {INSIDE}/{native} "$@"\n'
    )
