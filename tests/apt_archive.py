"""An archive of packages on a loopback server, signed with a test's key, as apt reads it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from email.utils import formatdate

from tests.loopback import Site
from tests.openpgp import Signer


def publish(
    site: Site,
    place: str,
    suite: str,
    debs: tuple[str, ...],
    signer: Signer,
    *,
    key: str,
    codename: str = "",
    universe: tuple[str, ...] = (),
    components: tuple[str, ...] = ("main", "universe"),
    architecture: str = "amd64",
) -> None:
    """Put a suite at ``place`` of a site, with ``debs`` in main and some in universe.

    Those for updates have the ``codename`` of the suite that they are for.
    """
    files: dict[str, bytes] = {}
    for component in components:
        chosen = {"main": debs, "universe": universe}.get(component, ())
        listed = "\n".join(_paragraph(deb) for deb in chosen).encode()
        files[f"{component}/binary-{architecture}/Packages"] = listed
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        for name, content in files.items()
    )
    release = (
        f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nCodename: {codename or suite}\n"
        f"Date: {formatdate(usegmt=True)}\n"
        f"Architectures: {architecture}\nComponents: {' '.join(components)}\nSHA256:\n{sums}"
    )
    above = f"{place}/dists/{suite}"
    for name, content in files.items():
        site.files[f"{above}/{name}"] = content
    site.files[f"{above}/InRelease"] = signer.sign_text(key, release.encode())
    for deb in (*debs, *universe):
        with open(deb, "rb") as file:
            site.files[f"{place}/{_filename(deb)}"] = file.read()


def _filename(deb: str) -> str:
    """Return where in the archive a package is: by a name without characters to be escaped."""
    return f"pool/{re.sub('[^A-Za-z0-9._-]', '-', os.path.basename(deb))}"


def _paragraph(deb: str) -> str:
    control = subprocess.run(
        ["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True
    ).stdout
    with open(deb, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    where = f"Filename: {_filename(deb)}\nSize: {os.path.getsize(deb)}\n"
    return f"{control.rstrip()}\n{where}SHA256: {digest}\n"
