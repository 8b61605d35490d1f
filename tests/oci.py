"""Container images that a test makes: real programs in layers of its own, layouts, a registry."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

from tests.patience import await_server
from xbuild.record import HostPath, Record

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_TAG = "org.opencontainers.image.ref.name"


class File(Record):
    """A member of a layer: ``kind`` is tarfile's, ``link`` a target, ``xattrs`` raw values."""

    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    xattrs: tuple[tuple[str, str], ...] = ()


def layer(files: dict[str, File]) -> bytes:
    """Return a layer as a tar archive."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, file in files.items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = file.kind, file.link, len(file.content)
                member.uid, member.gid, member.mode = file.uid, file.gid, file.mode
                member.devmajor, member.devminor = 1, 3
                member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in file.xattrs}
                archive.addfile(member, io.BytesIO(file.content))
        return output.getvalue()


class Images:
    """A layout in a directory."""

    def __init__(self, path: str) -> None:
        self.path = HostPath(path)
        _run("umoci", "init", "--layout", path)

    def add(self, tag: str, layers: list[bytes], *, architecture: str, config: list[str]) -> None:
        """Make an image of these layers; ``config`` are options of umoci-config(1)."""
        image = f"{self.path}:{tag}"
        _run("umoci", "new", "--image", image)
        for content in layers:
            name = f"{self.path}.layer"
            with open(name, "wb") as file:
                file.write(content)
            _run("umoci", "raw", "add-layer", "--image", image, name)
            os.unlink(name)
        _run("umoci", "config", "--image", image, "--architecture", architecture, *config)

    def join(self, tag: str, platforms: dict[str, dict[str, str]]) -> None:
        """Make an index of images by their tags, each for a platform."""
        index = self.read_index()
        named = {each["annotations"][_TAG]: each for each in index["manifests"]}
        parts = [
            {key: named[name][key] for key in ("mediaType", "digest", "size")} | {"platform": where}
            for name, where in platforms.items()
        ]
        content = json.dumps(
            {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": parts}
        ).encode()
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(content)
        descriptor = {
            "mediaType": _INDEX_TYPE,
            "digest": f"sha256:{digest}",
            "size": len(content),
            "annotations": {_TAG: tag},
        }
        index["manifests"].append(descriptor)
        with open(f"{self.path}/index.json", "w", encoding="utf-8") as text:
            json.dump(index, text)

    def read_index(self) -> dict[str, Any]:  # Any: what JSON holds
        """Return index.json."""
        with open(f"{self.path}/index.json", encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)  # Any: as above
        return found

    def blob(self, digest: str) -> HostPath:
        """Return the file of a blob."""
        return HostPath(f"{self.path}/blobs/{digest.replace(':', '/')}")


@contextlib.contextmanager
def registry(place: str) -> Iterator[str]:
    """Run Debian's docker-registry on a port of the loopback interface; yields host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = f"{place}/registry.yml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory:"
            f" {place}/registry}}}}\nhttp: {{addr: '{address}'}}\n"
        )
    with subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            await_server(address)
            yield address
        finally:
            server.terminate()


def push(images: Images, tag: str, reference: str) -> None:
    """Copy an image, or all of an index, to a registry on this machine."""
    target = f"docker://{reference}"
    command = ("skopeo", "copy", "--all", "--dest-tls-verify=false")
    _run(*command, f"oci:{images.path}:{tag}", target)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
