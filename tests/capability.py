"""The one gate for what a machine may lack: a skip with its reason, or a failure where required.

``XBUILD_REQUIRE=all`` (or a comma-separated list of capabilities) turns skips into failures.
The capability ``mirror`` is not ours to guarantee: under ``all`` it still skips, and the summary
at the end says so; it fails only where it is listed by name.
"""

from __future__ import annotations

import os

import pytest

VARIABLE = "XBUILD_REQUIRE"
BEYOND_US = frozenset({"mirror"})

not_tested: list[str] = []
"""What was skipped although everything is required: printed when the session ends."""


def require(capability: str, present: bool, reason: str) -> None:
    """Go on if ``present``; otherwise skip, or fail where the capability is required."""
    if present:
        return
    if is_required(capability):
        pytest.fail(f"this machine must have {capability!r} ({VARIABLE}): {reason}", pytrace=False)
    if everything_is_required():
        not_tested.append(f"{capability}: {reason}")
    pytest.skip(f"{capability}: {reason}")


def is_required(capability: str) -> bool:
    """Tell whether a missing ``capability`` is a failure."""
    return capability in _listed() or (everything_is_required() and capability not in BEYOND_US)


def everything_is_required() -> bool:
    """Tell whether the machine promises to have all that the tests use."""
    return "all" in _listed()


def _listed() -> frozenset[str]:
    return frozenset(os.environ.get(VARIABLE, "").replace(" ", "").split(","))
