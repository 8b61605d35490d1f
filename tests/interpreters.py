"""Several versions of qemu for tests: fetched by ``xbuild setup``, once for each session."""

from __future__ import annotations

import json

from tests.capability import require
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.record import Record

NAMES = ("arm64", "armhf")
WITHOUT_QEMU = """
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/usr/bin,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr/bin
rm /usr/bin/qemu-*
for other in /usr/libexec/qemu-binfmt /usr/local/bin; do
    ! test -d $other || mount -t tmpfs none $other
done
exec "$@"
"""
"""A script for root of a mount namespace of its own: what follows runs on a host without qemu."""


class Versions(Record):
    """A runner whose cache has the interpreters of two releases; their versions, older first."""

    runner: Runner
    environment: dict[str, str]
    older: str
    newer: str


def fetch_versions(runner: Runner, cache: str) -> Versions:
    """Have ``runner`` fetch those of Debian 12 and 13 into the cache directory ``cache``."""
    environment = runner.user.environment(XDG_CACHE_HOME=cache)
    for suite in ("bookworm", "trixie"):
        done = runner.command("setup", "--suite", suite, *NAMES, env=environment, timeout_s=WORK_S)
        unavailable = any(text in done.stderr for text in ("does not serve", "Cannot reach"))
        require("mirror", not unavailable, done.stderr)
        assert done.returncode == 0, done.stderr
    listed = runner.command("setup", "--list", "--json", "arm64", env=environment)
    found = json.loads(listed.stdout)["interpreters"]
    fetched = [each["version"] for each in found if each["path"].startswith(cache)]
    assert len(fetched) == 2, found
    return Versions(runner, environment, fetched[1], fetched[0])
