"""Signatures by keys made for the test, checked by the real gpgv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openpgp import Signer, signer
from xbuild.errors import SignatureRefused
from xbuild.record import HostPath
from xbuild.source.openpgp import verify_file, verify_text

TEXT = b"# Latest\n- dashes \nplain\n\n-----last-----\t \n"
THEN = "20200102T000000"


@pytest.fixture(scope="module")
def keys() -> Iterator[Signer]:
    with signer() as made:
        yield made


@pytest.fixture
def data(tmp_path: Path) -> HostPath:
    path = tmp_path / "tree.tar"
    path.write_bytes(b"content")
    return HostPath(str(path))


@pytest.mark.parametrize("is_armoured", [True, False])
def test_good_signature_names_who_signed(keys: Signer, data: HostPath, is_armoured: bool) -> None:
    keyring = keys.keyring("good", is_armoured=is_armoured)
    found = verify_file(data, keys.sign("good", b"content"), keyring)
    assert found.signer == "good <good@test>"
    assert len(found.fingerprint) == 40


def test_keyring_of_several_armoured_keys(keys: Signer, data: HostPath, tmp_path: Path) -> None:
    both = tmp_path / "both.asc"
    both.write_bytes(b"".join(Path(keys.keyring(name)).read_bytes() for name in ("other", "good")))
    found = verify_file(data, keys.sign("good", b"content"), HostPath(str(both)))
    assert found.signer == "good <good@test>"


def test_wrong_key(keys: Signer, data: HostPath) -> None:
    with pytest.raises(
        SignatureRefused, match=r"tree.tar is signed by the key .*, which is not in"
    ):
        verify_file(data, keys.sign("other", b"content"), keys.keyring("good"))


def test_changed_file(keys: Signer, data: HostPath) -> None:
    with pytest.raises(SignatureRefused, match="is not what was signed"):
        verify_file(data, keys.sign("good", b"other content"), keys.keyring("good"))


def test_expired_key(keys: Signer, data: HostPath) -> None:
    signature = keys.sign("old", b"content", when=THEN)
    with pytest.raises(SignatureRefused, match=r"key that has expired on 2020-01-11: \w+ old"):
        verify_file(data, signature, keys.keyring("old"))


@pytest.mark.parametrize("signature", [b"", b"nonsense", b"\0" * 100])
def test_what_is_no_signature(keys: Signer, data: HostPath, signature: bytes) -> None:
    with pytest.raises(SignatureRefused, match="no signature that could be checked"):
        verify_file(data, signature, keys.keyring("good"))


def test_no_keyring(keys: Signer, data: HostPath) -> None:
    with pytest.raises(SignatureRefused, match="no keyring /nonexistent: No such file") as caught:
        verify_file(data, keys.sign("good", b"content"), HostPath("/nonexistent"))
    assert "--keyring" in caught.value.hint


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"])
def test_keyring_without_keys(keys: Signer, data: HostPath, tmp_path: Path, content: str) -> None:
    keyring = tmp_path / "keys.asc"
    keyring.write_text(content)
    with pytest.raises(SignatureRefused):
        verify_file(data, keys.sign("good", b"content"), HostPath(str(keyring)))


def test_no_gpgv(keys: Signer, data: HostPath, monkeypatch: pytest.MonkeyPatch) -> None:
    signature, keyring = keys.sign("good", b"content"), keys.keyring("good")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SignatureRefused, match="gpgv is not installed") as caught:
        verify_file(data, signature, keyring)
    assert "apt install gpgv" in caught.value.hint


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_signed_text_is_what_was_signed(keys: Signer, ending: bytes) -> None:
    signed = keys.sign_text("good", TEXT).replace(b"\n", ending)
    content, made = verify_text(signed, keys.keyring("good"), what="latest.txt")
    assert content == TEXT.replace(b" \n", b"\n").replace(b"\t", b"")
    assert made.signer == "good <good@test>"


def test_what_stands_around_a_signed_text_does_not_count(keys: Signer) -> None:
    signed = b"before\n" + keys.sign_text("good", TEXT) + b"behind\n"
    content, _ = verify_text(signed, keys.keyring("good"), what="latest.txt")
    assert b"before" not in content
    assert b"behind" not in content


def test_changed_text(keys: Signer) -> None:
    signed = keys.sign_text("good", TEXT).replace(b"plain", b"plane")
    with pytest.raises(SignatureRefused, match=r"latest.txt is not what was signed"):
        verify_text(signed, keys.keyring("good"), what="latest.txt")


def test_text_added_to_the_headers(keys: Signer) -> None:
    signed = keys.sign_text("good", TEXT).replace(b"\n\n# Latest", b"\n\nevil\n\n# Latest", 1)
    with pytest.raises(SignatureRefused, match="is not what was signed"):
        verify_text(signed, keys.keyring("good"), what="latest.txt")


def test_text_that_is_not_signed(keys: Signer) -> None:
    with pytest.raises(SignatureRefused, match=r"latest.txt is not signed"):
        verify_text(TEXT, keys.keyring("good"), what="latest.txt")
