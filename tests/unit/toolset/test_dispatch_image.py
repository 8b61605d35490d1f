"""The dispatcher's machine code in the repository is what its source says."""

from __future__ import annotations

import os
from pathlib import Path

from tests.built_code import assert_made_of_source
from xbuild.toolset import dispatcher

DISPATCH = Path(dispatcher.__file__).parent / "dispatch"


def test_image_is_made_of_its_source(tmp_path: Path) -> None:
    assert_made_of_source(DISPATCH, tmp_path / "image")


def test_image_fits_in_a_page_and_needs_no_data() -> None:
    for image in DISPATCH.glob("*.bin"):
        content = image.read_bytes()
        assert len(content) % 16 == 0
        assert len(content) < 4096
        assert b"/run/xbuild/native.table\0" in content
        assert os.access(image, os.R_OK)
