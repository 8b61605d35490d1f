"""docs/walkthrough-gentoo.md, command by command: from a stage3 to a flashed card."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.documented import blocks, commands, make_home, type_line
from tests.gentoo import PACKAGES, install_portage, lay_out
from tests.installation import CHECKOUT
from tests.loopback import Site
from tests.openpgp import Signer
from tests.patience import WORK_S
from tests.release_mirrors import publish_stage3
from tests.runs import Runner, write_program
from xbuild.record import HostPath

DOCUMENT = Path(CHECKOUT, "docs/walkthrough-gentoo.md").read_text(encoding="utf-8")
PROFILE = "default/linux/arm64/23.0"
FSTAB = "# <fs> <mountpoint> <type> <opts> <dump> <pass>\n"
OTHERWISE = {  # what is not to be had here, or would ask
    " --ask": "",
    "app-editors/vim net-misc/chrony": "app-misc/hello",
    "-- passwd": "-- hello",
    "flash card.img /dev/sdX": "flash --yes card.img card",
}
NOT_HERE = ("emerge-webrsync",)  # Gentoo's mirrors; the stage3 of the test has a repository


@pytest.fixture
def home(root: Runner, fresh_tree: Callable[..., HostPath]) -> Iterator[HostPath]:
    """A home directory with xbuild on the way to it, and a card in the reader, which is a file."""
    place = HostPath(os.path.dirname(fresh_tree("arm64")))
    make_home(root, place)
    with open(f"{place}/card", "xb") as card:
        card.truncate(8 << 30)
    yield place
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def stage3(tree: HostPath) -> bytes:
    """Return an archive of a tree with Portage, as Gentoo's release engineering makes them."""
    lay_out(tree, "# set by catalyst\nCOMMON_FLAGS=-O2\n", PROFILE)
    install_portage(tree, PROFILE)
    write_program(f"{tree}/etc/fstab", FSTAB, 0o644)
    write_program(f"{tree}/boot/kernel8.img", b"kernel", 0o644)
    packed = ["tar", "-c", "--xattrs", "-C", tree, "-I", "xz -0 -T0", "."]
    return subprocess.run(packed, capture_output=True, check=True).stdout


def test_from_a_stage3_to_a_flashed_card(
    root: Runner,
    home: HostPath,
    site: Site,
    keys: Signer,
    fresh_tree: Callable[..., HostPath],
) -> None:
    publish_stage3(site, keys, stage3(fresh_tree("arm64", None, PACKAGES)))
    mirror = f"--mirror {site.url} --keyring {keys.keyring('good')}"
    said = {}
    for command in commands(DOCUMENT):
        if any(words in command for words in NOT_HERE):
            continue
        line = command.removeprefix("sudo ")
        for printed, here in OTHERWISE.items():
            line = line.replace(printed, here)
        if line.startswith("xbuild create ~/pi"):
            line += f" {mirror}"
        said[command] = done = type_line(root, home, line, cwd=home, timeout_s=WORK_S)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if line.startswith("xbuild inspect ~/pi"):
            (make_conf,) = blocks(DOCUMENT, "sh")
            Path(home, "pi/etc/portage/make.conf").write_text(make_conf)

    assert_shown_is_said(said["xbuild profile show gentoo ~/pi"].stdout, home)
    (on_the_card,) = (done.stdout for command, done in said.items() if "-- passwd" in command)
    assert re.fullmatch(r"made with -j\d+ -l\d+ by portage in /var/tmp/portage/.*\n", on_the_card)
    store = Path(home, ".cache/xbuild/portage/binpkgs/aarch64-unknown-linux-gnu")
    assert [path.name for path in store.rglob("hello-*")] == ["hello-1.0-1.gpkg.tar"]
    read = ["mtype", "-i", f"{home}/card@@{4 << 20}", "::kernel8.img"]
    assert subprocess.run(read, capture_output=True, check=True).stdout == b"kernel"
    both = ("--profile", "gentoo", "--profile", "image", f"{home}/card")
    shown = root.output(*both, "sh", "-c", "echo $PKGDIR $QEMU_CPU; grep ' / ' /etc/fstab")
    assert re.match(r"/run/xbuild/portage/binpkgs cortex-a72\n\S+ / ext4 ", shown)


def assert_shown_is_said(said: str, home: HostPath) -> None:
    """Compare what the page shows of the profile with what it is, but for this machine's size."""
    (shown,) = (
        block.partition("\n")[2]
        for block in blocks(DOCUMENT, "console")
        if block.startswith("$ xbuild profile show")
    )
    for text in (shown, said):
        assert re.search(r"size=\d+m\n", text)
    lines = [re.sub(r"\d+m$|-j\d+ -l\d+", "…", line) for line in said.splitlines()]
    wanted = shown.replace("/home/me", home).splitlines()
    # The repository is the host's where it has one, and a note goes elsewhere.
    expected = [
        re.sub(r"\d+m$|-j\d+ -l\d+", "…", line)
        for line in wanted
        if not line.startswith(("bind_ro", "note"))
    ]
    assert [line for line in lines if not line.startswith("bind_ro")] == expected
