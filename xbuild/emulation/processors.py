"""Which of qemu's processor models compiler flags ask for, and what a model cannot run of them.

Levels are those of one family's instruction sets, in order: a processor of a level runs what was
compiled for it and those before. From GCC's options (-march, -mcpu, -mfpu) and qemu's -cpu help.
"""

from __future__ import annotations

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NATIVE = "native"
MOST = "max"  # qemu's model with all that it emulates


class Family(Record):
    """Levels by the names that flags have for them, and those of ``models``, which are qemu's.

    Of several models of one level, the first is chosen. ``processors`` are those that -mcpu names
    and qemu has not.
    """

    levels: Mapping[str, int]
    models: Mapping[str, int]
    processors: Mapping[str, int]


class Demand(Record):
    """What flags ask for: a ``model`` of qemu's that has it, None where they ask for nothing.

    ``flag`` is the word that said so.
    """

    flag: str = ""
    level: int = -1
    model: str | None = None
    is_native: bool = False


def _by_name(*levels: str) -> dict[str, int]:
    """Return the index of the level that each word is of."""
    return {word: index for index, words in enumerate(levels) for word in words.split()}


_ARM = Family(
    _by_name(
        "armv4t armv5t armv5te armv5tej",
        "armv6 armv6j",
        "armv6k armv6z armv6kz armv6zk armv6t2",
        "armv7 armv7-a",
        "armv7ve",
        "armv8-a armv8.1-a armv8.2-a armv8.3-a armv8.4-a armv8.5-a armv8.6-a",
    ),
    _by_name("arm926", "arm1136", "arm1176", "cortex-a9 cortex-a8", "cortex-a15 cortex-a7", MOST),
    _by_name(
        "arm926ej-s",
        "arm1136j-s arm1136jf-s",
        "arm1176jz-s arm1176jzf-s",
        "cortex-a5",
        "cortex-a12 cortex-a17",
        "cortex-a32 cortex-a35 cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a73 cortex-a76",
    ),
)
_AARCH64 = Family(
    _by_name(
        "armv8-a",
        "armv8.1-a",
        "armv8.2-a",
        "armv8.3-a armv8.4-a armv8.5-a armv8.6-a armv8.7-a armv9-a armv9.1-a armv9.2-a",
    ),
    _by_name("cortex-a53 cortex-a57 cortex-a72", "", "cortex-a76 neoverse-n1 a64fx", MOST),
    _by_name(
        "cortex-a35 cortex-a73",
        "",
        "cortex-a55 cortex-a75 cortex-a77 cortex-a78 cortex-x1",
        "cortex-x2 neoverse-n2 neoverse-v1",
    ),
)
_POWER = Family(
    _by_name("power4 970 powerpc64", "power7", "power8 powerpc64le", "power9", "power10"),
    _by_name("970", "power7", "power8", "power9", "power10"),
    {},
)
_MIPS32 = Family(
    _by_name("mips1 mips2 mips32", "mips32r2 24kc 24kf 34kc 74kc", "mips32r5", "mips32r6"),
    _by_name("", "24Kf 34Kf 74Kf", "P5600", "mips32r6-generic"),
    {},
)
_MIPS64 = Family(
    _by_name("mips3 mips4 mips64", "mips64r2 octeon octeon+", "mips64r6"),
    _by_name("5KEf", "MIPS64R2-generic", "I6400"),
    {},
)
FAMILIES: Mapping[str, Family] = {
    "arm": _ARM,
    "armeb": _ARM,
    "aarch64": _AARCH64,
    "aarch64_be": _AARCH64,
    "ppc64": _POWER,
    "ppc64le": _POWER,
    "mips": _MIPS32,
    "mipsel": _MIPS32,
    "mips64": _MIPS64,
    "mips64el": _MIPS64,
    "mipsn32": _MIPS64,
    "mipsn32el": _MIPS64,
}
"""By qemu's name for an architecture; of others, flags say nothing that is known here."""

_FLOATING_POINT = {"neon-vfpv4": 4, "vfpv4": 4, "vfpv4-d16": 4, "neon-fp-armv8": 5, "fp-armv8": 5}
_LONG_VECTORS = ("+sve", "+sve2", "+sme")  # optional at any level, and few models have them


def read_demand(arch: str, flags: tuple[str, ...]) -> Demand:
    """Return what compiler flags ask of a processor. Pure."""
    family = FAMILIES.get(arch)
    demand = Demand()
    for flag in flags:
        option, _, value = flag.partition("=")
        if option in ("-march", "-mcpu") and value == NATIVE:
            return Demand(flag, is_native=True)
        if family is None:
            continue
        found = _demand_of(family, option, value, flag)
        if found is not None and found.level >= demand.level:
            demand = found
    return demand


def _demand_of(family: Family, option: str, value: str, flag: str) -> Demand | None:
    base, plus, extensions = value.partition("+")
    if option == "-mfpu" and family is _ARM and value in _FLOATING_POINT:
        level = _FLOATING_POINT[value]
    elif option not in ("-march", "-mcpu"):
        return None
    elif base in family.models:
        level = family.models[base]
        if not any(each in plus + extensions for each in _LONG_VECTORS):
            return Demand(flag, level, base)
    elif base in family.processors:
        level = family.processors[base]
    else:
        level = family.levels.get(base, -1)
    if level < 0:
        return None
    if any(each in plus + extensions for each in _LONG_VECTORS):
        return Demand(flag, max(family.levels.values()), MOST)
    return Demand(flag, level, _lowest_model(family, level))


def _lowest_model(family: Family, level: int) -> str | None:
    fitting = [model for model, its_level in family.models.items() if its_level >= level]
    return min(fitting, key=lambda model: family.models[model]) if fitting else None


def shortfall(arch: str, demand: Demand, model: str, models: tuple[str, ...]) -> str:
    """Say what ``model``, one of qemu's ``models``, cannot run of what flags ask for."""
    family = FAMILIES.get(arch)
    if demand.is_native:
        return (
            f"{demand.flag} means the emulated processor, neither this machine's nor the one that"
            " programs are for: name that one, such as -mcpu=cortex-a72"
        )
    if family is None or demand.level < 0:
        return ""
    if model not in models and model:
        return f"{demand.flag} asks for {model}, which this qemu lacks: it emulates its default"
    if family.models.get(model, demand.level) < demand.level:
        return f"{demand.flag} is beyond {model}: programs may end by an illegal instruction"
    return ""


def parse_models(text: str) -> tuple[str, ...]:
    """Return the models that ``qemu-ARCH -cpu help`` lists, in each of its formats."""
    names = []
    for line in text.splitlines():
        words = line.replace("PowerPC ", "").replace("MIPS ", "").split()
        if words and words[0] not in ("Available", "Recognized") and not line.endswith(":"):
            names.append(words[0].strip("'"))
    return tuple(names)
