"""OpenPGP signatures, checked by gpgv(1) with a keyring that is named, and no other.

gpgv and not sqv(1): to sqv, what a key signed before it expired is good for ever.
Formats: RFC 9580, 6.2 (armour) and 7 (cleartext). No key is ever made, fetched or trusted here.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import tempfile
import time

from xbuild.errors import SignatureRefused
from xbuild.record import HostPath, Record

_BEGIN_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BEGIN_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_KEY_BLOCK = re.compile(
    rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?P<body>.*?)"
    rb"^-----END PGP PUBLIC KEY BLOCK-----",
    re.M | re.S,
)
_KEYRING_LIMIT = 64 << 20
_WEAK = ("MD5", "SHA1", "RIPEMD160")


class Signature(Record):
    """Who signed: the fingerprint of the key, its owner's name, and when (seconds since 1970)."""

    fingerprint: str
    signer: str
    made_at: int


def require_keyring(keyring: HostPath, hint: str) -> None:
    """Raise SignatureRefused, with this hint, where there is no keyring with keys."""
    try:
        _binary_keyring(keyring)
    except SignatureRefused as error:
        raise SignatureRefused(error.message, hint) from error


def verify_file(
    data: HostPath, signature: bytes, keyring: HostPath, *, what: str = ""
) -> Signature:
    """Check a detached signature, armoured or not, of a file. Raises SignatureRefused."""
    with tempfile.TemporaryDirectory(prefix="xbuild-gpgv-") as directory:
        keys = os.path.join(directory, "keys.gpg")
        _write(keys, _binary_keyring(keyring))
        signed = os.path.join(directory, "signature")
        _write(signed, signature)
        said = _gpgv(directory, keys, signed, data)
    return _judge(said, keyring, what or os.path.basename(data))


def verify_text(text: bytes, keyring: HostPath, *, what: str) -> tuple[bytes, Signature]:
    """Check a text with its signature around it; return what is signed, and nothing else.

    The text is taken out here, and checked as it was taken out: what stands before, between and
    behind does not count. Lines end with a newline, the last one too. Raises SignatureRefused.
    """
    content, signature = _split_cleartext(text, what)
    with tempfile.NamedTemporaryFile(prefix="xbuild-signed-") as file:
        file.write(content)
        file.flush()
        made = verify_file(HostPath(file.name), signature, keyring, what=what)
    return content + b"\n", made


def _split_cleartext(text: bytes, what: str) -> tuple[bytes, bytes]:
    lines = [line.rstrip(b"\r") for line in text.split(b"\n")]
    try:
        start = lines.index(_BEGIN_SIGNED)
        begin = lines.index(b"", start) + 1  # behind the headers
        end = lines.index(_BEGIN_SIGNATURE, begin)
    except ValueError:
        raise SignatureRefused(f"{what} is not signed", _TRY_ANOTHER) from None
    content = [line.removeprefix(b"- ").rstrip(b" \t") for line in lines[begin:end]]
    return b"\n".join(content), b"\n".join(lines[end:]) + b"\n"


def _binary_keyring(keyring: HostPath) -> bytes:
    """Return the keys of a file as gpgv reads them: without armour."""
    try:
        with open(keyring, "rb") as file:
            content = file.read(_KEYRING_LIMIT)
    except OSError as error:
        raise SignatureRefused(
            f"Cannot check signatures: no keyring {keyring}: {error.strerror}",
            "--keyring FILE names the file with the keys that you trust",
        ) from error
    if b"-----BEGIN PGP" not in content:
        return content
    try:
        keys = b"".join(_without_armour(found["body"]) for found in _KEY_BLOCK.finditer(content))
    except binascii.Error:
        keys = b""
    if not keys:
        raise SignatureRefused(f"Cannot check signatures: {keyring} has no public key in it")
    return keys


def _without_armour(body: bytes) -> bytes:
    lines = [line.strip() for line in body.splitlines()]
    lines = lines[lines.index(b"") + 1 :] if b"" in lines else lines
    return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")))


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _gpgv(home: str, keys: str, signature: str, data: str) -> str:
    weak = [option for name in _WEAK for option in ("--weak-digest", name)]
    command = ["gpgv", "--homedir", home, "--keyring", keys, "--status-fd", "1", *weak]
    try:
        answer = subprocess.run(
            [*command, "--", signature, data],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise SignatureRefused(
            "Cannot check signatures: gpgv is not installed",
            "apt install gpgv, dnf install gnupg2, apk add gpgv, pacman -S gnupg",
        ) from error
    return answer.stdout.decode("utf-8", "replace")


_TRY_ANOTHER = "a mirror out of step, or tampered with: try another; nothing of it was used"


def _judge(said: str, keyring: HostPath, what: str) -> Signature:
    """Decide by gpgv's own report (GnuPG's doc/DETAILS), whose exit status forgives expiry."""
    rows = [line.split()[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ")]
    words = {row[0]: row[1:] for row in reversed(rows) if row}
    if "BADSIG" in words:
        raise SignatureRefused(f"{what} is not what was signed: it was changed", _TRY_ANOTHER)
    if "GOODSIG" in words and "VALIDSIG" in words:
        valid = words["VALIDSIG"]
        return Signature(valid[0], " ".join(words["GOODSIG"][1:]), int(valid[2]))
    if "EXPKEYSIG" in words:
        moment = next((row[1] for row in rows if row[0] == "KEYEXPIRED"), "")
        day = f" on {time.strftime('%Y-%m-%d', time.gmtime(int(moment)))}" if moment else ""
        raise SignatureRefused(
            f"{what} is signed by a key that has expired{day}: {' '.join(words['EXPKEYSIG'])}",
            f"update {keyring}: keys are prolonged",
        )
    if "EXPSIG" in words:
        raise SignatureRefused(f"{what} has a signature that has expired", _TRY_ANOTHER)
    if "REVKEYSIG" in words:
        revoked = " ".join(words["REVKEYSIG"])
        raise SignatureRefused(f"{what} is signed by a key that was revoked: {revoked}")
    if "NO_PUBKEY" in words:
        raise SignatureRefused(
            f"{what} is signed by the key {words['NO_PUBKEY'][0]}, which is not in {keyring}",
            "if you trust that key, --keyring FILE names a file that has it",
        )
    raise SignatureRefused(f"{what} has no signature that could be checked", _TRY_ANOTHER)
