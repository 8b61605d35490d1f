"""Cache keys: what changes them, and what they look like."""

from __future__ import annotations

import re

import pytest

from xbuild.plan.cache_key import Ingredients, cache_key
from xbuild.record import replace

PLAIN = Ingredients("aarch64", "7.2.22 (Debian 1:7.2)", None, "off", ("dpkg make arm64 4.3",))


def test_form() -> None:
    assert re.fullmatch(
        r"xbuild-aarch64-qemu7\.2\.22__Debian_1_7\.2_-[0-9a-f]{20}", cache_key(PLAIN)
    )
    native = cache_key(replace(PLAIN, version=""))
    assert re.fullmatch(r"xbuild-aarch64-native-[0-9a-f]{20}", native)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "arm"},
        {"version": "8"},
        {"cpu": "cortex-a53"},
        {"native": "fast"},
        {"inventory": ("dpkg make arm64 4.4",)},
        {"inventory": ()},
    ],
)
def test_what_changes_it(changes: dict[str, object]) -> None:
    assert cache_key(replace(PLAIN, **changes)) != cache_key(PLAIN)


def test_exact_native_tools_write_the_same_bytes() -> None:
    assert cache_key(replace(PLAIN, native="exact")) == cache_key(PLAIN)
