"""What commands print with ``--json`` is what docs/json.md says of it, key by key."""

from __future__ import annotations

import json
import os

import pytest

from tests.documented_json import check_document, check_event
from tests.images import MIB, Part, make_image
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.record import HostPath

COMMANDS = {
    "a tree": ("inspect", "--json", "TREE"),
    "a tree in full": ("inspect", "--json", "--full", "TREE"),
    "a program": ("inspect", "--json", "TREE/bin/true"),
    "an image": ("inspect", "--json", "IMAGE"),
    "profiles": ("profile", "list", "--json"),
    "the host": ("doctor", "--json"),
    "a tree on the host": ("doctor", "--json", "TREE"),
    "who": ("who", "--json", "TREE"),
    "sets": ("native", "list", "--json"),
    "the cache": ("cache", "list", "--json"),
    "the cache, pruned": ("cache", "prune", "--dry-run", "--json", "--all"),
    "containers": ("ps", "--json"),
    "a plan": ("run", "--dry-run", "--json", "TREE"),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> HostPath:
    place = tmp_path_factory.mktemp("json")
    layout = [Part("boot", "vfat", 40 * MIB, {"config.txt": b""}), Part("root", "ext4", 16 * MIB)]
    return make_image(place / "pi.img", layout=layout)


@pytest.mark.parametrize("what", COMMANDS)
def test_document_is_as_described(root: Runner, image: HostPath, what: str) -> None:
    tree = root.tree("arm64")
    words = [word.replace("TREE", tree).replace("IMAGE", image) for word in COMMANDS[what]]
    with root.spawn("--name", f"json-{os.getpid()}", tree, "cat", stdin=-1) as other:
        done = root.command(*words, timeout_s=WORK_S)
        assert other.stdin is not None
        other.stdin.close()
    assert done.returncode in (0, 1), done.stderr
    check_document(json.loads(done.stdout))


def test_another_document_is_found_out() -> None:
    """The test itself: that it can fail."""
    good = {"schema": "xbuild.who/1", "path": "/x", "uses": [], "unseen": 0}
    check_document(good)
    use = {"kind": "process", "text": "t", "hint": "h", "pid": None, "place": ""}
    check_document({**good, "uses": [use]})
    for wrong in (
        {**good, "unseen": "0"},
        {**good, "unseen": True},
        {**good, "more": 1},
        {**good, "uses": [{**use, "pid": "1"}]},
        {**good, "uses": [{"kind": "process"}]},
        {"schema": "xbuild.who/1", "path": "/x", "uses": []},
    ):
        with pytest.raises(AssertionError):
            check_document(wrong)
    check_event({"event": "note", "at_s": 1, "text": "x"})
    with pytest.raises(AssertionError):
        check_event({"event": "note", "at_s": 1, "text": None})
