"""Growing and shrinking: identifiers stay, files stay, and no interruption harms an image."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.crafted import Layout
from tests.images import MIB, Part, TableKind, make_image, write_filesystem, write_table
from tests.users import User
from xbuild.errors import DamagedImage, ImageBusy, ImageError
from xbuild.image.lock import lock_image
from xbuild.image.resize import STEPS, grow_image, shrink_image
from xbuild.image.table import Table, read_table
from xbuild.record import HostPath
from xbuild.sandbox.loop import attach_loop

CONTENT = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(MIB // 32))
CMDLINE: Layout = {"cmdline.txt": b"root=PARTUUID=2d5ab1e5-02 rootwait\n"}
FSTAB = b"PARTUUID=2d5ab1e5-02 / ext4 defaults 0 1\nPARTUUID=2d5ab1e5-01 /boot vfat ro 0 2\n"
TREE: Layout = {"etc/fstab": FSTAB, "file": CONTENT}


def card(path: Path, table: TableKind = "mbr", name: str = "card.img") -> HostPath:
    parts = [Part("boot", "vfat", 16 * MIB, CMDLINE), Part("root", "ext4", 48 * MIB, TREE)]
    return make_image(path / name, table=table, layout=parts if table != "none" else parts[1:])


def offset_of(image: HostPath) -> int:
    return max((p.offset for p in read_table(image).partitions), default=0)


def tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_sound(image: HostPath) -> None:
    """The table is valid, the file system clean, and the files are there."""
    place = f"{image}?offset={offset_of(image)}"
    tool("e2fsck", "-f", "-n", place)
    if read_table(image).kind == "gpt":
        assert "No errors detected" in tool("sfdisk", "--verify", image)
    for name, wanted in (("/etc/fstab", FSTAB), ("/file", CONTENT)):
        shown = subprocess.run(
            ["debugfs", "-R", f"cat {name}", place], capture_output=True, check=True
        )
        assert shown.stdout == wanted


def identifiers(image: HostPath) -> tuple[object, ...]:
    table = read_table(image)
    rows = [(p.number, p.offset, p.type, p.name, p.partuuid, p.bootable) for p in table.partitions]
    facts = tool("dumpe2fs", "-h", f"{image}?offset={offset_of(image)}").splitlines()
    kept = [f for f in facts if f.startswith(("Filesystem UUID", "Filesystem volume name"))]
    return (table.kind, table.disk_id, rows, kept)


def digest(image: HostPath) -> str:
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("table", ["mbr", "gpt", "none"])
def test_grown_image_keeps_identifiers_and_files(tmp_path: Path, table: TableKind) -> None:
    image = card(tmp_path, table)
    before = identifiers(image)
    done = grow_image(image, size=100 * MIB, is_relative=True)
    assert identifiers(image) == before
    assert os.path.getsize(image) == done.size == done.size_before + 100 * MIB
    assert done.filesystem >= 147 * MIB
    assert_sound(image)


@pytest.mark.parametrize("table", ["mbr", "gpt", "none"])
def test_shrunk_image_keeps_identifiers_and_files(tmp_path: Path, table: TableKind) -> None:
    image = card(tmp_path, table)
    grow_image(image, size=300 * MIB)
    before = identifiers(image)
    done = shrink_image(image)
    assert identifiers(image) == before
    assert os.path.getsize(image) == done.size < 100 * MIB
    assert_sound(image)


def test_shrinks_to_a_given_size(tmp_path: Path) -> None:
    image = card(tmp_path, "gpt")
    grow_image(image, size=300 * MIB)
    assert shrink_image(image, size=200 * MIB).size == os.path.getsize(image) == 200 * MIB
    assert_sound(image)


def test_boot_code_and_firmware_partition_stay_as_they_are(tmp_path: Path) -> None:
    image = card(tmp_path)
    with open(image, "r+b") as file:
        file.write(b"\xeb\x63" + b"boot code".ljust(400, b"!"))
        file.seek(8 << 10)
        file.write(b"a loader in the gap")
        file.seek(0)
        head = file.read(17 * MIB)
    grow_image(image, size=128 * MIB)
    with open(image, "rb") as file:
        now = file.read(17 * MIB)
    assert now[:446] + now[512:] == head[:446] + head[512:]


def test_last_logical_partition_grows_with_its_container(tmp_path: Path) -> None:
    layout = [
        Part("boot", "vfat", 16 * MIB, CMDLINE),
        Part("", "extended", 50 * MIB),
        Part("root", "ext4", 48 * MIB, TREE),
    ]
    image = make_image(tmp_path / "card.img", layout=layout)
    before = identifiers(image)
    grow_image(image, size=150 * MIB)
    assert identifiers(image) == before
    assert_sound(image)


def test_owner_mode_and_symlink_stay(tmp_path: Path) -> None:
    image = card(tmp_path)
    os.chmod(image, 0o640)
    if os.geteuid() == 0:
        os.chown(image, 1234, 5678)
    before = os.stat(image)
    link = tmp_path / "link.img"
    link.symlink_to("card.img")
    grow_image(HostPath(str(link)), size=100 * MIB)
    after = os.stat(image)
    assert link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize("table", ["mbr", "gpt"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("verb", ["grow", "shrink"])
def test_killed_after_a_step_leaves_a_whole_image(
    tmp_path: Path, table: TableKind, step: str, verb: str
) -> None:
    image = card(tmp_path, table)
    if verb == "shrink":
        grow_image(image, size=200 * MIB)
    before, old = identifiers(image), digest(image)
    child = os.fork()
    if child == 0:
        resize(image, verb, lambda now: os.kill(os.getpid(), signal.SIGKILL * (now == step)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (digest(image) == old) == (step != "replaced")
    assert identifiers(image) == before
    assert_sound(image)
    if step != "replaced":
        resize(image, verb, None)
    assert_sound(image)
    assert os.listdir(tmp_path) == ["card.img"]


def resize(image: HostPath, verb: str, after_step: Callable[[str], None] | None) -> None:
    if verb == "grow":
        grow_image(image, size=256 * MIB, after_step=after_step)
    else:
        shrink_image(image, after_step=after_step)


@pytest.mark.parametrize("table", ["mbr", "gpt"])
@pytest.mark.parametrize("verb", ["grow", "shrink"])
def test_killed_at_any_moment_leaves_a_whole_image(
    tmp_path: Path,
    xbuild_for: Callable[[User | None], list[str]],
    table: TableKind,
    verb: str,
) -> None:
    image = card(tmp_path, table)
    if verb == "shrink":
        grow_image(image, size=300 * MIB)
    before = identifiers(image)
    for tenths in range(1, 8):
        size = (200 + (tenths if verb == "grow" else -tenths)) * MIB
        with subprocess.Popen(
            [*xbuild_for(None), "image", verb, image, str(size)],
            process_group=0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(tenths / 12)
            os.killpg(process.pid, signal.SIGKILL)
        assert identifiers(image) == before
        assert_sound(image)
    resize(image, verb, None)
    assert os.listdir(tmp_path) == ["card.img"]


def test_other_file_systems_and_other_partitions_are_refused(tmp_path: Path) -> None:
    layout = [Part("root", "ext4", 32 * MIB, TREE), Part("data", "vfat", 16 * MIB)]
    image = make_image(tmp_path / "card.img", layout=layout)
    old = digest(image)
    with pytest.raises(ImageError, match=r"last partition \(2\) holds vfat"):
        grow_image(image, size=100 * MIB)
    assert digest(image) == old


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    image = card(tmp_path)
    old = digest(image)
    with pytest.raises(ImageError, match="Cannot grow"):
        grow_image(image, size=32 * MIB)
    with pytest.raises(ImageError, match="its files need"):
        shrink_image(image, size=18 * MIB)
    with pytest.raises(ImageError, match="it has fewer"):
        shrink_image(image, size=500 * MIB)
    assert digest(image) == old
    assert os.listdir(tmp_path) == ["card.img"]


def test_damaged_file_system_is_refused_and_left_alone(tmp_path: Path) -> None:
    image = card(tmp_path)
    with open(image, "r+b") as file:
        file.seek(offset_of(image) + 4096)  # group descriptors
        file.write(b"\xff" * 4096)
    old = digest(image)
    with pytest.raises((DamagedImage, ImageError)):
        grow_image(image, size=100 * MIB)
    assert digest(image) == old


def test_image_with_a_second_name_is_refused(tmp_path: Path) -> None:
    image = card(tmp_path)
    os.link(image, tmp_path / "other.img")
    with pytest.raises(ImageError, match="2 names"):
        grow_image(image, size=100 * MIB)


def test_image_in_use_is_refused(tmp_path: Path) -> None:
    image = card(tmp_path)
    with lock_image(image, exclusive=False), pytest.raises(ImageBusy):
        grow_image(image, size=100 * MIB)


def test_attached_image_is_refused(tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "loop devices need root")
    image = card(tmp_path)
    with open(image, "r+b") as file:
        loop = attach_loop(file.fileno(), 0, 0, read_only=False)
    try:
        with pytest.raises(ImageBusy):
            grow_image(image, size=100 * MIB)
    finally:
        os.close(loop.fd)


def test_image_changed_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    image = card(tmp_path)

    def meddle(step: str) -> None:
        if step == "copied":
            with open(image, "r+b") as file:
                file.write(b"x")

    with pytest.raises(ImageError, match="changed by another program"):
        grow_image(image, size=100 * MIB, after_step=meddle)
    with open(image, "rb") as file:
        assert file.read(1) == b"x"
    assert os.listdir(tmp_path) == ["card.img"]


def test_full_disk_leaves_the_image_as_it_was(
    tmp_path: Path, xbuild_for: Callable[[User | None], list[str]]
) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    image = card(tmp_path)
    (tmp_path / "full").mkdir()
    place = f"{tmp_path}/full"
    script = (
        f"mount -t tmpfs -o size=12m none {place} && cp --sparse=always {image} {place}/card.img"
        f" && dd if=/dev/zero of={place}/filler bs=64k 2>/dev/null;"
        f" {xbuild_for(None)[0]} image grow {place}/card.img +50M; echo status $?;"
        f" cmp {image} {place}/card.img && ls -A {place}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert "status 125" in done.stdout, done.stdout + done.stderr
    assert done.stdout.split()[2:] == ["card.img", "filler"]
    assert "free" in done.stderr


def test_file_system_without_holes_serves(tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    image = card(tmp_path)
    place = tmp_path / "ramfs"
    place.mkdir()
    code = (
        "import sys; from xbuild.image.resize import grow_image, shrink_image\n"
        "grow_image(sys.argv[1], size=100 << 20); shrink_image(sys.argv[1], size=90 << 20)"
    )
    script = (
        'mount -t ramfs none "$1" && cp "$2" "$1/c.img" && "$3" -c "$4" "$1/c.img"'
        ' && e2fsck -fn "$1/c.img?offset=$5" && stat -c "size %s" "$1/c.img"'
    )

    arguments = [str(place), image, sys.executable, code, str(offset_of(image))]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        },
    )
    assert f"size {90 * MIB}" in done.stdout, done.stdout + done.stderr


def test_table_of_a_grown_gpt_has_its_backup_at_the_end(tmp_path: Path) -> None:
    image = card(tmp_path, "gpt")
    grow_image(image, size=150 * MIB)
    with open(image, "rb") as file:
        file.seek(-512, os.SEEK_END)
        assert file.read(8) == b"EFI PART"
    table = read_table(image)
    assert isinstance(table, Table)
    assert table.kind == "gpt"


@pytest.mark.parametrize("start", [63, 2049, 8200])
def test_partition_that_begins_anywhere_grows_and_shrinks(tmp_path: Path, start: int) -> None:
    image = HostPath(str(tmp_path / "card.img"))
    root = Part("root", "ext4", 48 * MIB, TREE)
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    write_table(image, "mbr", [(start * 512, root)])
    write_filesystem(image, start * 512, root)
    before = identifiers(image)
    for verb in ("grow", "shrink", "shrink"):
        done = grow_image(image, size=200 * MIB) if verb == "grow" else shrink_image(image)
        assert done.size == os.path.getsize(image)
        assert done.filesystem <= done.size - start * 512
    assert identifiers(image) == before
    assert_sound(image)


def test_grows_into_room_that_the_file_has_already(tmp_path: Path) -> None:
    image = card(tmp_path)
    os.truncate(image, 150 * MIB)
    assert grow_image(image, size=150 * MIB).filesystem == 133 * MIB
    assert_sound(image)


def test_awkward_names_serve(tmp_path: Path) -> None:
    place = tmp_path / "what? offset=1"
    place.mkdir()
    image = card(place, name="-a?offset=7\n.img")
    done = grow_image(image, size=150 * MIB)
    assert done.size == os.path.getsize(image)
    assert shrink_image(image).size < 150 * MIB
    assert os.listdir(place) == ["-a?offset=7\n.img"]


def test_ordinary_user_grows_packs_and_flashes(
    tmp_path: Path, ordinary_user: User, xbuild_for: Callable[[User | None], list[str]]
) -> None:
    home = Path(ordinary_user.home)
    image = card(tmp_path)
    script = (
        'set -e; cp --sparse=always "$1" "$2/card.img"; cd "$2"; shift 2\n'
        '"$@" grow card.img +50M; "$@" pack card.img --compress zstd\n'
        'truncate -s 200M device; "$@" flash card.img.zst device --yes\n'
        "cmp -n 512 card.img device && rm card.img* device SHA256SUMS && ls -A | grep img || true"
    )
    os.chmod(tmp_path, 0o755)
    shared = home / "shared.img"
    shared.write_bytes(Path(image).read_bytes())
    shared.chmod(0o644)
    command = ["sh", "-c", script, "sh", str(shared), str(home)]
    done = ordinary_user.run([*command, *xbuild_for(ordinary_user), "image"])
    shared.unlink()
    assert done.returncode == 0, done.stderr
    assert "device: " in done.stdout
    assert "verified" in done.stdout
