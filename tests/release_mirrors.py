"""Mirrors of releases on a loopback site: laid out and signed as Gentoo's and Alpine's are."""

from __future__ import annotations

import hashlib
import time

from tests.loopback import Site
from tests.openpgp import Signer

STAMP = "20260101T000000Z"
GENTOO = "/releases/arm64/autobuilds"
VARIANT = "arm64-openrc"
STAGE3 = f"{GENTOO}/{STAMP}/stage3-{VARIANT}-{STAMP}.tar.xz"
LATEST = f"{GENTOO}/latest-stage3-{VARIANT}.txt"
ALPINE = "/v3.20/releases/aarch64"
MINIROOTFS = f"{ALPINE}/alpine-minirootfs-3.20.3-aarch64.tar.gz"
RELEASES = f"{ALPINE}/latest-releases.yaml"


def publish_stage3(site: Site, keys: Signer, archive: bytes, *, key: str = "good") -> None:
    """Put a stage3 archive on a mirror, with what Gentoo's release engineering puts beside it."""
    name = STAGE3.rpartition("/")[2]
    listed = (
        f"# Latest as of Thu, 01 Jan 2026 00:00:00 +0000\n# ts={int(time.time())}\n"
        f"{STAMP}/{name} {len(archive)}\n"
    )
    digests = (
        f"# BLAKE2B HASH\n{hashlib.blake2b(archive).hexdigest()}  {name}\n"
        f"# SHA512 HASH\n{hashlib.sha512(archive).hexdigest()}  {name}\n"
        f"# SHA512 HASH\n{hashlib.sha512(b'').hexdigest()}  {name}.CONTENTS.gz\n"
    )
    site.files[LATEST] = keys.sign_text(key, listed.encode())
    site.files[STAGE3] = archive
    site.files[f"{STAGE3}.DIGESTS"] = keys.sign_text(key, digests.encode())
    site.files[f"{STAGE3}.asc"] = keys.sign(key, archive)


def publish_minirootfs(site: Site, keys: Signer, archive: bytes, *, key: str = "good") -> None:
    """Put a minirootfs archive on a mirror, with what Alpine's release manager puts beside it."""
    name = MINIROOTFS.rpartition("/")[2]
    entries = (
        ("Netboot", "alpine-netboot", "alpine-netboot-3.20.3-aarch64.tar.gz", b"other"),
        ("Mini root filesystem", "alpine-minirootfs", name, archive),
    )
    listed = "---\n" + "".join(
        f'-\n  title: "{title}"\n  desc: |\n    Minimal.\n    file: not-this\n\n'
        f"  branch: v3.20\n  arch: aarch64\n  version: 3.20.3\n  flavor: {flavour}\n"
        f"  file: {file}\n  iso: {file}\n  date: 2026-01-01\n  size: {len(content)}\n"
        f"  sha256: {hashlib.sha256(content).hexdigest()}\n"
        f"  sha512: {hashlib.sha512(content).hexdigest()}\n"
        for title, flavour, file, content in entries
    )
    site.files[RELEASES] = listed.encode()
    site.files[MINIROOTFS] = archive
    site.files[f"{MINIROOTFS}.asc"] = keys.sign(key, archive)
