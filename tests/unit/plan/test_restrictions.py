"""Which restriction an errno and a host's settings speak of."""

from __future__ import annotations

import errno
import os

import pytest

from xbuild.plan.kernel import kernel_version
from xbuild.plan.restrictions import (
    why_no_private_binfmt,
    why_no_user_namespace,
)

Settings = dict[str, str]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The sysctls of a host to be, seen by an ordinary user."""
    values: Settings = {}
    monkeypatch.setattr("xbuild.plan.restrictions.read_sysctl", values.get)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return values


@pytest.mark.parametrize("kind", ["user", "mnt", "pid", "net"])
def test_limit_of_none_is_named(settings: Settings, kind: str) -> None:
    settings[f"user.max_{kind}_namespaces"] = "0"
    found = why_no_user_namespace(errno.ENOSPC)
    assert f"(user.max_{kind}_namespaces=0)" in found.cause
    assert found.hint.startswith(f"as root: sysctl user.max_{kind}_namespaces=15000; or run")


def test_limit_of_an_outer_namespace_is_told_apart(settings: Settings) -> None:
    settings["user.max_user_namespaces"] = "15000"
    assert "in an outer user namespace" in why_no_user_namespace(errno.ENOSPC).cause


@pytest.mark.parametrize(
    ("name", "forbids", "allows"),
    [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ],
)
def test_setting_that_forbids_is_named_with_the_one_that_allows(
    settings: Settings, name: str, forbids: str, allows: str
) -> None:
    settings[name] = allows
    assert name not in why_no_user_namespace(errno.EPERM).cause
    settings[name] = forbids
    found = why_no_user_namespace(errno.EPERM)
    assert f"({name}={forbids})" in found.cause
    assert found.hint.startswith(f"as root: sysctl {name}={allows}")
    assert found.hint.endswith("; or run xbuild as root")


def test_root_is_not_told_of_settings_for_users(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["kernel.apparmor_restrict_unprivileged_userns"] = "1"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = why_no_user_namespace(errno.EPERM)
    assert "AppArmor takes" not in found.cause
    assert "as root" not in found.hint


def test_denial_by_policy_is_told_from_a_refusal(settings: Settings) -> None:
    assert "security module" in why_no_user_namespace(errno.EACCES).cause


def test_old_kernel_has_no_private_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    release = os.uname_result(("Linux", "host", "6.1.0-40-amd64", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: release)
    found = why_no_private_binfmt(errno.EPERM)
    assert "private ones came with 6.7" in found.cause
    assert "xbuild binfmt register" in found.hint


def test_missing_module_is_told_from_a_refusal() -> None:
    assert "modprobe binfmt_misc" in why_no_private_binfmt(errno.ENODEV).hint
    assert "was refused" in why_no_private_binfmt(errno.EPERM).cause


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc-v657", (6, 18)),
        ("5.12-rc1", (5, 12)),
        ("6.1.0-40-amd64", (6, 1)),
        ("6.7rc3+", (6, 7)),
        ("strange", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_version_is_read_from_any_release(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version
