"""Which container or service this is, by the marks that engines and runners leave."""

from __future__ import annotations

import os

import pytest

from xbuild.plan.restrictions import why_no_user_namespace
from xbuild.plan.surroundings import is_service_with_sudo, outer_engine

Marks = set[str]
_PLACES = ("/.dockerenv", "/run/.containerenv")


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> Marks:
    """The files by which a container is known, on a machine that has none of them."""
    there: Marks = set()
    real = os.path.exists
    monkeypatch.setattr(
        os.path, "exists", lambda path: path in there if path in _PLACES else real(path)
    )
    for name in ("KUBERNETES_SERVICE_HOST", "GITLAB_CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return there


@pytest.mark.parametrize(
    ("mark", "variable", "engine"),
    [
        ("", "", None),
        ("/.dockerenv", "", "docker"),
        ("/run/.containerenv", "", "podman"),
        ("/.dockerenv", "GITLAB_CI", "gitlab"),
        ("/run/.containerenv", "GITLAB_CI", "gitlab"),
        ("/.dockerenv", "GITHUB_ACTIONS", "github"),
        ("", "GITLAB_CI", None),
        ("", "GITHUB_ACTIONS", None),
        ("", "KUBERNETES_SERVICE_HOST", "kubernetes"),
        ("/.dockerenv", "KUBERNETES_SERVICE_HOST", "kubernetes"),
    ],
)
def test_engine(
    marks: Marks, monkeypatch: pytest.MonkeyPatch, mark: str, variable: str, engine: str | None
) -> None:
    marks.add(mark)
    if variable:
        monkeypatch.setenv(variable, "true")
    assert outer_engine() == engine


def test_ubuntu_24_of_github_is_told_the_step(
    marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    monkeypatch.setattr("xbuild.plan.restrictions.read_sysctl", {name: "1"}.get)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert why_no_user_namespace(13).hint.startswith(f"as root: sysctl {name}=0, or an AppArmor")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert is_service_with_sudo()
    hint = why_no_user_namespace(13).hint
    assert hint.startswith(f"in a step before: sudo sysctl -w {name}=0, or an AppArmor profile")


def test_a_security_module_in_a_container(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbuild.plan.restrictions.read_sysctl", lambda _name: None)
    marks.add("/.dockerenv")
    found = why_no_user_namespace(13)
    assert "most likely by the profile of the container" in found.cause
    assert found.hint.startswith("docker run --security-opt seccomp=unconfined")
