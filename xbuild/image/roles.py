"""What a partition is for: by its GPT type, its file system, its label, fstab and its bits.

GPT types are those of the Discoverable Partitions Specification (uapi-group.org). Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

from xbuild.image.filesystem import Filesystem
from xbuild.image.table import Partition, Table

Role = Literal["root", "boot", "esp", "home", "swap", "lvm", "luks", "unknown"]

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_BY_GPT_TYPE: dict[str, Role] = {
    ESP: "esp",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "boot",  # XBOOTLDR
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "home",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "lvm",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "luks",
}
_BY_MBR_TYPE: dict[str, Role] = {"ef": "esp", "82": "swap"}
_BY_FILESYSTEM: dict[str, Role] = {
    "swap": "swap",
    "crypto_LUKS": "luks",
    "LVM2_member": "lvm",
}
_BOOT_LABELS = frozenset(("boot", "bootfs", "firmware", "system-boot", "raspifirm"))
_MOUNTED: dict[str, Role] = {
    "/": "root",
    "/boot": "boot",
    "/boot/efi": "esp",
    "/boot/firmware": "boot",
    "/efi": "esp",
    "/home": "home",
}

ROOT_TYPES = {
    "6523f8ae-3eb1-4e2a-a05a-18b695ae656f": "alpha",
    "d27f46ed-2919-4cb8-bd25-9531f3c16534": "arc",
    "69dad710-2ce4-4e3c-b16c-21a1d49abed3": "arm",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "aarch64",
    "993d8d3d-f80e-4225-855a-9daf8ed7ea97": "ia64",
    "77055800-792c-4f94-b39a-98c91b762bb6": "loongarch64",
    "e9434544-6e2c-47cc-bae2-12d6deafb44c": "mips",
    "d113af76-80ef-41b4-bdb6-0cff4d3d4a25": "mips64",
    "37c58c8a-d913-4156-a25f-48b1b64e07f0": "mipsel",
    "700bda43-7a34-4507-b179-eeb93d7a7ca3": "mips64el",
    "1aacdb3b-5444-4138-bd9e-e5c2239b2346": "hppa",
    "1de3f1ef-fa98-47b5-8dcd-4a860a654d78": "ppc",
    "912ade1d-a839-4913-8964-a10eee08fbd2": "ppc64",
    "c31c45e6-3f39-412e-80fb-4809c4980599": "ppc64le",
    "60d5a7fe-8e7d-435c-b714-3dd8162144e1": "riscv32",
    "72ec70a6-cf74-40e6-bd49-4bda08e8f224": "riscv64",
    "08a7acea-624c-4a20-91e8-6e0fa67d23f9": "s390",
    "5eead9a9-fe09-4a1e-a1d7-520d00531306": "s390x",
    "c50cdd70-3862-4cc3-90e1-809a8c93ee2c": "tilegx",
    "44479540-f297-41b2-9af7-d131d5f0458a": "i386",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "x86_64",
}
"""Root partition types, and xbuild's names of the architectures whose roots they mark."""

_ATTACH = "attach it yourself: losetup -P --find --show {image}, then "
_UNOPENED: dict[str, tuple[str, str]] = {
    "crypto_LUKS": (
        "it is encrypted (LUKS)",
        _ATTACH + "cryptsetup open {device} NAME, and name /dev/mapper/NAME instead",
    ),
    "LVM2_member": (
        "it is a physical volume of LVM",
        _ATTACH + "vgchange -ay, and name /dev/GROUP/VOLUME instead",
    ),
    "linux_raid_member": (
        "it is a member of a RAID",
        _ATTACH + "mdadm --assemble, and name /dev/mdN instead",
    ),
    "BitLocker": (
        "it is encrypted (BitLocker)",
        _ATTACH + "cryptsetup open --type bitlk {device} NAME, and name /dev/mapper/NAME instead",
    ),
}


def why_unopened(filesystem: Filesystem | None, image: str, number: int) -> tuple[str, str]:
    """Return why what is in partition ``number`` is not opened here, and what to do instead.

    Both are "" for what is opened.
    """
    reason, hint = _UNOPENED.get(filesystem.type if filesystem else "", ("", ""))
    device = f"/dev/loopXp{number}" if number else "/dev/loopX"
    return reason, hint.format(image=shlex.quote(image), device=device)


def role_of(
    table: Table,
    partition: Partition,
    filesystem: Filesystem | None,
    *,
    root: int | None,
    targets: Sequence[str] = (),
) -> Role:
    """Return what a partition is for; ``targets`` are where fstab mounts it."""
    kind = filesystem.type if filesystem else ""
    if kind in _BY_FILESYSTEM:
        return _BY_FILESYSTEM[kind]
    if partition.number == root:
        return "root"
    for target in targets:
        if target in _MOUNTED:
            return _MOUNTED[target]
    types = _BY_GPT_TYPE if table.kind == "gpt" else _BY_MBR_TYPE
    if partition.type in types:
        return types[partition.type]
    return "boot" if _is_boot(table, partition, filesystem) else "unknown"


def _is_boot(table: Table, partition: Partition, filesystem: Filesystem | None) -> bool:
    """Tell whether the firmware's loader reads it: FAT at the front, or a label that says so."""
    if filesystem is None:
        return False
    if {filesystem.label.lower(), partition.name.lower()} & _BOOT_LABELS:
        return True
    first = min((p.offset for p in table.partitions), default=0)
    return filesystem.type == "vfat" and (partition.offset == first or partition.bootable)
