"""OpenPGP keys that are made for a test, and what they sign."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator

from xbuild.record import HostPath


class Signer:
    """Keys by name, in a directory of their own."""

    def __init__(self, home: str) -> None:
        self._home = home

    def make_key(self, name: str, *, when: str = "", days: int = 0) -> None:
        """Make a key, at a time (20200101T000000) if given, that lasts so long or for ever."""
        expiry = f"{days}d" if days else "never"
        empty = ["--passphrase", "", "--pinentry-mode", "loopback"]
        self._gpg(
            when, *empty, "--quick-gen-key", f"{name} <{name}@test>", "ed25519", "sign", expiry
        )

    def keyring(self, name: str, *, is_armoured: bool = True) -> HostPath:
        """Write the public part of a key to a file."""
        path = os.path.join(self._home, f"{name}.{'asc' if is_armoured else 'gpg'}")
        with open(path, "wb") as file:
            armour = ["--armor"] if is_armoured else []
            file.write(self._gpg("", *armour, "--export", f"{name}@test"))
        return HostPath(path)

    def sign(self, name: str, content: bytes, *, when: str = "") -> bytes:
        """Return an armoured detached signature."""
        key = ["--local-user", f"{name}@test"]
        return self._gpg(when, *key, "--armor", "--detach-sign", content=content)

    def sign_text(self, name: str, text: bytes, *, when: str = "") -> bytes:
        """Return a text with its signature around it."""
        return self._gpg(when, "--local-user", f"{name}@test", "--clearsign", content=text)

    def _gpg(self, when: str, *arguments: str, content: bytes = b"") -> bytes:
        clock = ["--faked-system-time", f"{when}!"] if when else []
        command = ["gpg", "--homedir", self._home, "--batch", "--quiet", *clock, *arguments]
        done = subprocess.run(command, input=content, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@contextlib.contextmanager
def signer() -> Iterator[Signer]:
    """Lend keys named good, other, and old, which expired; gpg's agent is ended with them."""
    with tempfile.TemporaryDirectory(prefix="xbuild-gpg-") as home:
        try:
            made = Signer(home)
            for name in ("good", "other"):
                made.make_key(name)
            made.make_key("old", when="20200101T000000", days=10)
            yield made
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
