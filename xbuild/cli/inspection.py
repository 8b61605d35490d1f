"""What ``xbuild inspect`` prints: text for people, and JSON of schema xbuild.inspect/1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.cli.output import visible
from xbuild.record import assert_never

if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.cli.inspecting import Inspection, Way
    from xbuild.tree.survey import Survey

    Document = dict[str, object]

SCHEMA = "xbuild.inspect/1"

_MACHINES = {
    "EM_386": "x86", "EM_68K": "Motorola 68000", "EM_AARCH64": "AArch64", "EM_ALPHA": "Alpha",
    "EM_ALTERA_NIOS2": "Nios II", "EM_ARC_COMPACT2": "ARC HS", "EM_ARM": "ARM", "EM_CRIS": "CRIS",
    "EM_CSKY": "C-SKY", "EM_HEXAGON": "Hexagon", "EM_IA_64": "Itanium",
    "EM_LOONGARCH": "LoongArch", "EM_MICROBLAZE": "MicroBlaze", "EM_MIPS": "MIPS",
    "EM_OPENRISC": "OpenRISC", "EM_PARISC": "PA-RISC", "EM_PPC": "PowerPC", "EM_PPC64": "PowerPC",
    "EM_RISCV": "RISC-V", "EM_S390": "IBM Z", "EM_SH": "SuperH", "EM_SPARC": "SPARC",
    "EM_SPARC32PLUS": "SPARC v8+", "EM_SPARCV9": "SPARC v9", "EM_TILEGX": "TILE-Gx",
    "EM_X86_64": "x86-64", "EM_XTENSA": "Xtensa",
}  # fmt: skip
_FLOATS = {"hard": "hard float", "single": "single-precision hard float", "soft": "soft float"}


def as_text(inspection: Inspection) -> str:
    """Return the first line, which says the essential, and a row for each fact."""
    return "\n".join([visible(headline(inspection)), "", *laid_out(fact_rows(inspection))])


def laid_out(rows: list[tuple[str, str]]) -> list[str]:
    """Return a line for each row that says something, their texts below one another."""
    rows = [(label, text) for label, text in rows if text]
    width = max((len(label) for label, _ in rows), default=0)
    return [f"{label:<{width}}  {visible(text)}".rstrip() for label, text in rows]


def headline(inspection: Inspection) -> str:
    """Return one sentence: the target, its architecture, distribution and C library."""
    return f"{inspection.survey.target}: {spoken_facts(inspection)}"


def spoken_facts(inspection: Inspection) -> str:
    """Return architecture, distribution and C library as a sentence says them."""
    survey, arch = inspection.survey, inspection.arch
    machine = f"{_machine(arch)}, {arch.bits}-bit {arch.order}-endian"
    parts = [f"{name_of(arch, inspection)} ({machine})"]
    others = [name_of(other, inspection) for other, _ in inspection.ways[1:]]
    if others:
        parts.append(f"also {_listed(others)}")
    if survey.distribution is not None:
        parts.append(survey.distribution.pretty_name)
    parts.append(survey.libc or ("static" if survey.loader is None else "unknown C library"))
    return ", ".join(parts)


def name_of(arch: Arch, inspection: Inspection) -> str:
    """Return the name a person knows; of the leading program the ABI, and so Debian's, is known."""
    if arch == inspection.arch:
        return inspection.debian or arch.name
    return arch.common_name


def fact_rows(inspection: Inspection) -> list[tuple[str, str]]:
    """Return label and text of each fact, "" for what does not apply; the kind leads."""
    survey, arch, abi = inspection.survey, inspection.arch, inspection.abi
    distribution = survey.distribution.pretty_name if survey.distribution else "unknown"
    is_tree = survey.kind != "program"
    return [
        ("kind", survey.kind + (", merged /usr" if survey.is_merged_usr else "")),
        ("machine", f"{arch.machine_name} ({arch.machine})"),
        ("class", f"{arch.bits}-bit"),
        ("byte order", f"{arch.order}-endian"),
        ("ABI", _abi(inspection)),
        ("C library", survey.libc or ("none: static" if survey.loader is None else "unknown")),
        ("loader", _loader(survey)),
        ("shell", (survey.shell or "none") if is_tree else ""),
        ("distribution", distribution if is_tree else ""),
        ("Debian name", inspection.debian or "none"),
        ("Gentoo CHOST", inspection.chost),
        ("qemu", _qemu(arch, abi.cpu)),
        ("programs", _programs(inspection) if is_tree else ""),
        *_host_rows(inspection),
    ]


def _abi(inspection: Inspection) -> str:
    abi = inspection.abi
    words = [abi.name, _FLOATS.get(abi.float_abi or ""), abi.level, *abi.features]
    text = ", ".join(word for word in words if word)
    return text if inspection.is_abi_whole else f"{text} (by the header alone)".strip()


def _loader(survey: Survey) -> str:
    if survey.loader is None:
        return "none"
    return survey.loader + (" (missing: its programs cannot start)" * survey.is_loader_missing)


def _qemu(arch: Arch, cpu: str | None) -> str:
    if not arch.is_emulated:
        return "none"
    return f"qemu-{arch.name}" + (f" -cpu {cpu}" if cpu else "")


def _programs(inspection: Inspection) -> str:
    counts = dict(inspection.survey.programs)
    named = [(name_of(arch, inspection), counts.get(arch.name, 0)) for arch, _ in inspection.ways]
    text = ", ".join(f"{name} {count}" for name, count in named)
    return text + (" in all" if inspection.survey.complete else " in a sample; --full counts all")


def _host_rows(inspection: Inspection) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for arch, way in inspection.ways:
        name = name_of(arch, inspection) if len(inspection.ways) > 1 else ""
        rows.append(("this host" if not rows else "", _way(name, way)))
        rows += [("hint", line) for line in way.hint.splitlines()]
    return rows


def _way(name: str, way: Way) -> str:
    what = name or "it"
    match way.kind:
        case "native":
            words = f"runs {what} natively"
        case "native32":
            words = f"runs {what} natively in 32-bit mode"
        case "emulated":
            assert way.interpreter is not None
            version = f" (qemu {way.interpreter.version})" if way.interpreter.version else ""
            words = f"runs {what} through {way.interpreter.path}{version}"
        case "none":
            words = f"does not run {what}: {way.reason}"
        case _:
            assert_never(way.kind)
    return words


def _machine(arch: Arch) -> str:
    return _MACHINES.get(arch.machine_name, arch.machine_name)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def as_document(inspection: Inspection) -> Document:
    """Return the JSON document of docs/json.md: every key is always there, null where unknown."""
    survey, distribution = inspection.survey, inspection.survey.distribution
    return {
        "schema": SCHEMA,
        "target": survey.target,
        "kind": survey.kind,
        "architecture": _architecture(inspection),
        "abi": _abi_document(inspection),
        "qemu": {
            "binary": f"qemu-{inspection.arch.name}" if inspection.arch.is_emulated else None,
            "cpu": inspection.abi.cpu,
        },
        "libc": survey.libc,
        "loader": survey.loader,
        "loader_missing": survey.is_loader_missing,
        "leading_program": survey.leading_program,
        "shell": survey.shell,
        "merged_usr": survey.is_merged_usr,
        "owner": None if survey.owner < 0 else {"uid": survey.owner, "gid": survey.owner_gid},
        "distribution": None
        if distribution is None
        else {
            "id": distribution.id,
            "name": distribution.name,
            "version": distribution.version,
            "codename": distribution.codename,
            "pretty_name": distribution.pretty_name,
            "like": list(distribution.like),
        },
        "complete": survey.complete,
        "architectures": [_share(arch, way, survey) for arch, way in inspection.ways],
    }


def _architecture(inspection: Inspection) -> Document:
    arch = inspection.arch
    return {
        "name": arch.name,
        "debian": inspection.debian,
        "chost": inspection.chost,
        "uname": arch.uname,
        "machine": arch.machine_name,
        "machine_number": arch.machine,
        "bits": arch.bits,
        "byte_order": arch.order,
    }


def _abi_document(inspection: Inspection) -> Document:
    abi = inspection.abi
    return {
        "name": abi.name,
        "float": abi.float_abi,
        "level": abi.level,
        "features": list(abi.features),
        "elf_flags": abi.ident.flags,
        "from_header_alone": not inspection.is_abi_whole,
    }


def _share(arch: Arch, way: Way, survey: Survey) -> Document:
    interpreter = way.interpreter
    return {
        "name": arch.name,
        "programs": dict(survey.programs).get(arch.name, 0),
        "loader": dict(survey.loaders).get(arch.name),
        "host": {
            "way": way.kind,
            "interpreter": interpreter.path if interpreter else None,
            "version": interpreter.version if interpreter else None,
            "reason": way.reason or None,
            "hint": way.hint or None,
        },
    }
