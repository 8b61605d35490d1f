"""What two builds of the same project made, compared byte by byte, and why files differ."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from xbuild.native.corpus_compare import differing_sections

# What tells of the build and not of the source: its own log, its own dependency lists.
_LOGS = re.compile(r"(^|/)(config\.log|config\.status|configure\.log|.*\.dep|.*\.Po)$")


@dataclass
class Comparison:
    """How many files of a build were compared, and the causes of those that differ."""

    elf: int = 0
    archives: int = 0
    others: int = 0
    differing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in a line."""
        total = self.elf + self.archives + self.others
        same = total - len(self.differing)
        return f"{same} of {total} identical ({self.elf} ELF, {self.archives} archives)"


def compare_builds(left: Path, right: Path, made: list[Path], more: list[Path]) -> Comparison:
    """Compare what was ``made`` in ``left`` with the same files below ``right``."""
    result = Comparison()
    for name in made:
        if _LOGS.search(str(name)):
            continue
        one, other = (left / name).read_bytes(), right / name
        if one.startswith(b"\x7fELF"):
            result.elf += 1
        elif one.startswith((b"!<arch>\n", b"!<thin>\n")):
            result.archives += 1
        else:
            result.others += 1
        if not other.is_file():
            result.differing[str(name)] = "not made"
        elif one != other.read_bytes():
            result.differing[str(name)] = cause(left / name, other)
    for name in sorted(set(more) - set(made)):
        if not _LOGS.search(str(name)):
            result.others += 1
            result.differing[str(name)] = "made by this build alone"
    return result


def cause(left: Path, right: Path) -> str:
    """Say in what two files differ: the compiler's own words, sections, members or lines."""
    head = left.read_bytes()[:8]
    if head.startswith(b"\x7fELF"):
        one, other = _producers(left), _producers(right)
        if one != other:
            words = set(" ".join(one).split()) ^ set(" ".join(other).split())
            return f"DW_AT_producer: {' '.join(sorted(words))}"
        return f"sections {', '.join(differing_sections(str(left), str(right))) or 'headers'}"
    if head.startswith(b"!<arch>"):
        return _archive_cause(left, right)
    texts = [path.read_text("utf-8", "replace").splitlines() for path in (left, right)]
    lines = [line for line in texts[1] if line not in set(texts[0])]
    return f"text: {lines[0].strip()[:100]}" if lines else "text"


def _producers(path: Path) -> tuple[str, ...]:
    """Return what each compilation unit says of the compiler that made it."""
    found = set()
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if not elf.has_dwarf_info():
                return ()
            for unit in elf.get_dwarf_info().iter_CUs():
                attribute = unit.get_top_DIE().attributes.get("DW_AT_producer")
                if attribute is not None:
                    found.add(attribute.value.decode("utf-8", "replace"))
    except (ELFError, KeyError, AttributeError):
        return ()
    return tuple(sorted(found))


def _archive_cause(left: Path, right: Path) -> str:
    members = []
    with tempfile.TemporaryDirectory(prefix="xbuild-bench-") as place:
        for number, path in enumerate((left, right)):
            directory = Path(place) / str(number)
            directory.mkdir()
            subprocess.run(["ar", "x", str(path.resolve())], cwd=directory, check=True)
            members.append({p.name: p for p in directory.iterdir()})
        names = sorted(members[0].keys() ^ members[1].keys())
        if names:
            return f"members {', '.join(names)}"
        for name in sorted(members[0]):
            if members[0][name].read_bytes() != members[1][name].read_bytes():
                return f"{name}: {cause(members[0][name], members[1][name])}"
    return "order or headers of its members"
