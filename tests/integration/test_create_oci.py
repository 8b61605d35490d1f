"""``xbuild create --from oci:…``: container images of a registry, an archive, a layout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_create_tarball import create
from tests.oci import File, Images, layer, push, registry
from tests.runs import Runner, notes
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
CONFIG = [
    *("--config.env", "GREETING=hello world", "--config.env", "PATH=/opt/bin:/bin"),
    *("--config.env", "BRACES={cache} {of} ${its} {{own}}"),
    *("--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c"),
    *("--config.cmd", 'pwd; echo "$GREETING"; id -u', "--config.workingdir", "/srv"),
    *("--config.user", "33:33"),
]
# What vfs_cap_data holds for cap_net_raw=ep (linux/capability.h, revision 2).
NET_RAW = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
SHELL = ("sh", "ls", "cat", "id", "stat", "uname")


def first_layer(busybox: bytes) -> bytes:
    directories = {
        name: File(kind=tarfile.DIRTYPE) for name in ("bin", "etc", "dev", "srv", "gone", "opaque")
    }
    links = {f"bin/{name}": File(kind=tarfile.SYMTYPE, link="busybox") for name in SHELL}
    files = {
        "bin/busybox": File(busybox),
        "bin/ping": File(b"x" * 100, xattrs=(("security.capability", NET_RAW),)),
        "etc/passwd": File(b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n", mode=0o644),
        "etc/secret": File(b"old", uid=0, gid=42, mode=0o640),
        "srv/mine": File(b"mine", uid=33, gid=33, xattrs=(("user.note", "kept"),)),
        "srv/again": File(kind=tarfile.LNKTYPE, link="srv/mine"),
        "gone/file": File(b"x"),
        "opaque/below": File(b"x"),
        "dev/null": File(kind=tarfile.CHRTYPE, mode=0o666),
    }
    return layer(directories | files | links)


SECOND = layer(
    {
        ".wh.gone": File(),
        "opaque": File(kind=tarfile.DIRTYPE),
        "opaque/.wh..wh..opq": File(),
        "opaque/above": File(b"x"),
        "etc/secret": File(b"new", uid=7, gid=42, mode=0o600),
    }
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, busybox: Callable[[str], HostPath]) -> Images:
    """Images of two architectures, and an index of both; who runs the tests alone reads them."""
    found = Images(str(tmp_path_factory.mktemp("oci") / "images"))
    for architecture, debian in (("arm64", "arm64"), ("arm", "armhf")):
        content = Path(busybox(debian)).read_bytes()
        layers = [first_layer(content), SECOND]
        found.add(architecture, layers, architecture=architecture, config=CONFIG)
    found.join(
        "both",
        {
            "arm64": {"architecture": "arm64", "os": "linux"},
            "arm": {"architecture": "arm", "os": "linux", "variant": "v7"},
        },
    )
    return found


@pytest.fixture(scope="module")
def server(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that has the index as test/image:latest."""
    with registry(str(tmp_path_factory.mktemp("registry"))) as address:
        push(images, "both", f"{address}/test/image:latest")
        yield address


@pytest.fixture
def copied(images: Images, new_place: NewPlace) -> Callable[[User], HostPath]:
    """``copied(user)``: a place of a user's with a copy of the layout, that it may be damaged."""

    def copy(user: User) -> HostPath:
        place = new_place(user)
        shutil.copytree(images.path, f"{place}/images")
        owner = f"{user.uid}:{user.gid}"
        subprocess.run(["chown", "-R", owner, f"{place}/images"], check=True)
        return place

    return copy


@pytest.mark.parametrize(("arch", "machine"), [("arm64", "aarch64"), ("armhf", "armv7l")])
def test_image_of_a_registry(
    arch: str, machine: str, runner: Runner, server: str, new_place: NewPlace
) -> None:
    """The architecture that was asked for, layers on each other, owners, and how to run it."""
    tree = f"{new_place(runner.user)}/tree"
    done = create(runner, tree, f"docker://{server}/test/image", "--arch", arch)
    assert done.returncode == 0, done.stderr
    script = """
        uname -m; ls -d /gone /opaque/* 2>/dev/null; cat /etc/secret; echo
        stat -c '%u:%g %a' /etc/secret /srv/mine; stat -c %h /srv/again"""
    seen = runner.output("--no-settings", tree, "--", "sh", "-c", script).splitlines()
    owners = ["0:0 600", "0:0 755"] if runner.kind == "plain" else ["7:42 600", "33:33 755"]
    assert seen == [machine, "/opaque/above", "new", *owners, "2"]
    assert os.getxattr(f"{tree}/srv/mine", "user.note") == b"kept"
    assert "security.capability" in os.listxattr(f"{tree}/bin/ping")
    has_null = os.path.lexists(f"{tree}/dev/null")
    assert has_null == (runner.kind == "root")
    assert has_null or any("left out: dev/null" in note for note in notes(done))
    assert not any(name.startswith("user.rootless") for name in os.listxattr(f"{tree}/etc/secret"))
    beside = set(os.listdir(os.path.dirname(tree)))
    assert beside == {"tree", "tree.xbuild.toml"}


def test_where_root_keeps_credentials_to_itself(
    ranged: Runner, server: str, new_place: NewPlace, need_root: None
) -> None:
    """As once root ran podman: an ordinary user without a session has none there, and goes on."""
    tree = f"{new_place(ranged.user)}/tree"
    words = ("create", tree, "--from", f"docker://{server}/test/image", "--arch", "arm64")
    script = 'mount -t tmpfs -o mode=755 none /run && mkdir -m 700 /run/containers && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *ranged.user.argv([*ranged.xbuild, *words])],
        env=ranged.user.environment(),
        cwd=ranged.user.home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_its_settings_are_the_trees(ranged: Runner, server: str, new_place: NewPlace) -> None:
    tree = f"{new_place(ranged.user)}/tree"
    assert (
        create(ranged, tree, f"oci:{server}/test/image:latest", "--arch", "arm64").returncode == 0
    )
    assert ranged.output(tree) == "/srv\nhello world\n33\n"
    assert ranged.output(tree, "--", "sh", "-c", "echo $PATH") == "/opt/bin:/bin\n"
    braces = ranged.output(tree, "--", "sh", "-c", 'echo "$BRACES"')
    assert braces == "{cache} {of} ${its} {{own}}\n"  # no values of this host's
    assert ranged.output("--user", "root", "--chdir", "/", tree) == "/\nhello world\n0\n"
    planned = ranged.output("--dry-run", tree)
    assert "setting: command = /bin/sh -c 'pwd; " in planned
    held = ranged.command("hold", "--name", "held-image", tree)
    assert held.returncode == 0, held.stderr
    assert ranged.command("stop", "held-image").returncode == 0


def test_image_of_a_layout_and_of_an_archive(
    ranged: Runner, copied: Callable[[User], HostPath]
) -> None:
    place = copied(ranged.user)
    command = ["tar", "-C", f"{place}/images", "-cf", f"{place}/images.tar", "."]
    subprocess.run(command, check=True)
    sources = ("oci-layout:images:both", "oci-archive:images.tar:arm64", "oci-layout:images:arm64")
    for number, source in enumerate(sources):
        kind, _, rest = source.partition(":")
        tree = f"{place}/tree{number}"
        done = create(ranged, tree, f"{kind}:{place}/{rest}", "--arch", "arm64")
        assert done.returncode == 0, done.stderr
        assert ranged.output(tree) == "/srv\nhello world\n33\n"


@pytest.mark.parametrize(
    ("source", "arch", "words"),
    [
        ("docker://SERVER/test/image", "riscv64", "no image for riscv64, but for arm64, arm/v7"),
        ("docker://SERVER/test/image:old", "arm64", "There is no image"),
        ("docker://SERVER/test/nothing", "arm64", "There is no image"),
        (f"docker://SERVER/test/image@sha256:{'0' * 64}", "arm64", "There is no image"),
        ("docker://127.0.0.1:9/test/image", "arm64", "Cannot reach the registry"),
        ("oci-layout:PLACE/images:arm64", "s390x", "but for arm64\nhint: --arch arm64"),
        ("oci-layout:PLACE/images:both", "s390x", "no image for s390x, but for arm64, arm/v7"),
        ("oci-layout:PLACE/images:old", "arm64", "has no image 'old'"),
        ("oci-layout:PLACE/images", "arm64", "has several images"),
        ("oci-layout:PLACE/nothing", "arm64", "is no OCI layout"),
        ("oci-archive:PLACE/nothing.tar", "arm64", "No such file"),
        ("oci:; rm -rf /", "arm64", "is no image"),
    ],
)
def test_what_is_not_there(
    source: str,
    arch: str,
    words: str,
    single: Runner,
    server: str,
    copied: Callable[[User], HostPath],
) -> None:
    place = copied(single.user)
    source = source.replace("SERVER", server).replace("PLACE", place)
    done = create(single, f"{place}/tree", source, "--arch", arch)
    assert done.returncode in (2, 125)
    assert words in done.stderr
    assert os.listdir(place) == ["images"]


@pytest.mark.parametrize(
    ("part", "tag", "reason"),
    [
        ("index", "both", "a manifest has the digest sha256:"),
        ("manifest", "both", "a manifest has the digest sha256:"),
        ("manifest", "arm64", "a manifest has the digest sha256:"),
        ("config", "both", ""),
        ("layer", "both", ""),
    ],
)
def test_a_part_with_a_wrong_digest(
    part: str,
    tag: str,
    reason: str,
    single: Runner,
    images: Images,
    copied: Callable[[User], HostPath],
) -> None:
    """Each part is compared with what refers to it, of a layout as well.

    skopeo compares a manifest with an index that it chose it from, but neither an index nor a
    manifest with the layout's index.json: the ``reason`` is of the comparison that is xbuild's.
    """
    place = copied(single.user)
    path = blob_of(images, part).replace(images.path, f"{place}/images")
    content = Path(path).read_bytes()
    changed = (
        content.replace(b'"', b' "', 1) if part != "layer" else content[:-9] + b"x" + content[-8:]
    )
    Path(path).write_bytes(changed)
    done = create(single, f"{place}/tree", f"oci-layout:{place}/images:{tag}", "--arch", "arm64")
    assert done.returncode == 125
    assert f"damaged or tampered with: {reason}" in done.stderr
    assert os.listdir(place) == ["images"]


def blob_of(images: Images, part: str) -> str:
    """Return the file of a part of the arm64 image."""
    named = {each["annotations"].popitem()[1]: each for each in images.read_index()["manifests"]}
    if part in ("index", "manifest"):
        return images.blob(named["both" if part == "index" else "arm64"]["digest"])
    manifest = json.loads(Path(images.blob(named["arm64"]["digest"])).read_bytes())
    found = manifest["config"] if part == "config" else manifest["layers"][0]
    return images.blob(found["digest"])


def test_hostile_layers(single: Runner, root: Runner, new_place: NewPlace) -> None:
    """What leads out is refused or stays inside, and a bomb is stopped before it is unpacked."""
    place = new_place(root.user)
    with open(f"{place}/victim", "w", encoding="utf-8") as file:
        file.write("secret")
    hostile = Images(f"{place}/images")
    parts = {
        "dots": layer({"../evil": File(b"x")}),
        "link": layer({"l": File(kind=tarfile.SYMTYPE, link=place), "l/evil": File(b"x")}),
        "whiteout": layer({"l": File(kind=tarfile.SYMTYPE, link=place), "l/.wh.victim": File()}),
        "bomb": layer({"zeros": File(bytes(64 << 20))}),
    }
    for tag, content in parts.items():
        hostile.add(tag, [content], architecture="arm64", config=[])
    before = set(os.listdir(place))
    for tag in parts:
        source = f"oci-layout:{hostile.path}:{tag}"
        done = create(root, f"{place}/{tag}", source, "--arch", "arm64", "--size-limit", "32M")
        if tag in ("dots", "bomb"):
            assert done.returncode == 125
            assert "xbuild: layer sha256:" in done.stderr
            assert ("leads out" if tag == "dots" else "unpacks to more") in done.stderr
        assert not os.path.lexists(f"{place}/evil")
        assert Path(place, "victim").read_text() == "secret"
    assert set(os.listdir(place)) <= before | {"link", "whiteout"}


def test_device_node_whose_directory_becomes_a_link(ranged: Runner, new_place: NewPlace) -> None:
    """What was made in its place is removed from the tree, and from nowhere that the link leads."""
    place = new_place(ranged.user)
    outside = new_place(ranged.user)
    Path(outside, "null").touch()
    os.chown(f"{outside}/null", ranged.user.uid, ranged.user.gid)
    node = File(kind=tarfile.CHRTYPE)
    layers = [
        layer({"d": File(kind=tarfile.DIRTYPE), "d/null": node, "e/null": node}),
        layer({"d": File(kind=tarfile.SYMTYPE, link=outside)}),
    ]
    hostile = Images(f"{new_place(ranged.user)}/images")
    hostile.add("node", layers, architecture="arm64", config=[])
    subprocess.run(["chmod", "-R", "a+rX", hostile.path], check=True)
    done = create(ranged, f"{place}/t", f"oci-layout:{hostile.path}:node", "--arch", "arm64")
    assert done.returncode == 0, done.stderr
    assert os.readlink(f"{place}/t/d") == outside
    assert os.listdir(f"{place}/t/e") == []
    assert os.listdir(outside) == ["null"]


def test_settings_that_are_there_are_not_replaced(
    single: Runner, copied: Callable[[User], HostPath]
) -> None:
    place = copied(single.user)
    settings = Path(place, "tree.xbuild.toml")
    settings.write_text("user = 'me'\n")
    done = create(single, f"{place}/tree", f"oci-layout:{place}/images:arm64", "--arch", "arm64")
    assert done.returncode == 125
    assert f"{settings} exists already" in done.stderr
    assert settings.read_text() == "user = 'me'\n"
    assert set(os.listdir(place)) == {"images", "tree.xbuild.toml"}
