"""Which modules for users a tree has that native programs cannot load."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbuild.record import HostPath
from xbuild.toolset.users import foreign_modules
from xbuild.tree.resolve import DirectoryReader


@pytest.mark.parametrize(
    ("nsswitch", "modules"),
    [
        ("passwd: files sss [!NOTFOUND=return] systemd # ldap\nhosts: ldap\n", ("sss",)),
        ("passwd:compat\ngroup :\tldap files\n", ("ldap",)),
        ("group: ldap\npasswd: sss ldap\n", ("ldap", "sss")),
        ("passwd: files winbind ../x\n", ()),
        ("# nothing\n", ()),
        (None, ()),
    ],
)
def test_modules_that_are_named_and_there(
    tmp_path: Path, nsswitch: str | None, modules: tuple[str, ...]
) -> None:
    for name in ("etc", "usr/lib/aarch64-linux-gnu", "usr/lib64"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/lib/aarch64-linux-gnu/libnss_sss.so.2").touch()
    (tmp_path / "usr/lib64/libnss_ldap.so.2").symlink_to("elsewhere")
    if nsswitch is not None:
        (tmp_path / "etc/nsswitch.conf").write_text(nsswitch)
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        assert foreign_modules(reader) == tuple(f"libnss_{name}.so.2" for name in modules)
