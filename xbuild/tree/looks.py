"""What a file looks like by its first bytes, for messages about what is no target.

No attempt at file(1)'s completeness: what people do hand to a tool for root filesystems.
"""

from __future__ import annotations

LOOKS_BYTES = 4096

_AGAIN = "fetch or make it again"
_ITS_TREE = "name the tree that goes with it"
_LINUX = "name a tree with Linux programs"
_WANTED = "name a directory with a root filesystem; xbuild create makes one"

_MAGICS: tuple[tuple[int, bytes, str, str], ...] = (
    (
        0,
        b"MZ",
        "a PE program (Windows or UEFI)",
        f"{_LINUX}; wine runs these",
    ),
    (0, b"#!", "a script", "name the tree that it belongs to"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O program (macOS)", _LINUX),
    (0, b"\xce\xfa\xed\xfe", "a Mach-O program (macOS)", _LINUX),
    (0, b"\xca\xfe\xba\xbe", "a Java class or a Mach-O program", _LINUX),
    (0, b"\0asm", "a WebAssembly module", _LINUX),
    (0, b"hsqs", "a squashfs image", "unpack it with unsquashfs, or mount it"),
    (0, b"QFI\xfb", "a qcow2 disk image", "attach it with qemu-nbd and mount it"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (0, b"!<arch>\ndebian-binary", "a Debian package", "unpack it with dpkg-deb -x"),
    (
        0,
        b"!<arch>\n",
        "a static library or an ar archive",
        "ar x takes it apart; name a tree or a program",
    ),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "unpack it with rpm2archive"),
    (0, b"070701", "a cpio archive", "unpack it with cpio -id"),
    (0, b"070702", "a cpio archive", "unpack it with cpio -id"),
    (0, b"070707", "a cpio archive", "unpack it with cpio -id"),
    (
        0,
        b"\x27\x05\x19\x56",
        "a U-Boot image",
        f"dumpimage takes it apart; {_ITS_TREE}",
    ),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or a FIT image", _ITS_TREE),
    (56, b"ARMd", "an arm64 kernel", _ITS_TREE),
    (514, b"HdrS", "an x86 kernel", _ITS_TREE),
    (512, b"EFI PART", "a disk image (GPT)", "mount its partitions and name the mount point"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 image", "mount it and name the mount point"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS image", "mount it and name the mount point"),
    (0, b"XFSB", "an XFS image", "mount it and name the mount point"),
    (510, b"\x55\xaa", "a disk image (MBR)", "mount its partitions and name the mount point"),
)


def looks_like(header: bytes) -> tuple[str, str]:
    """Return what a file is, with its article, and a hint for it.

    ``header`` is the file's first LOOKS_BYTES, or all of a shorter one.
    """
    if not header:
        return "an empty file", _AGAIN
    for offset, magic, name, hint in _MAGICS:
        if header[offset : offset + len(magic)] == magic:
            return name, hint
    if not header.strip(b"\0"):
        return "a file of zeros", _AGAIN
    return ("a text file" if _is_text(header) else "data of an unknown format"), _WANTED


def _is_text(header: bytes) -> bool:
    if b"\0" in header:
        return False
    try:
        header[:-4].decode("utf-8")  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\n\f\r\x1b" for byte in header)
