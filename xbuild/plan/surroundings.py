"""The container or the service that xbuild runs in, and how it is told to allow what a run needs.

Off the start path: consulted when something was refused, and by ``xbuild doctor``. What is needed
is to make user namespaces and mounts in them; a /proc of one's own needs more (docs/ci.md).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Engine = Literal["docker", "podman", "kubernetes", "github", "gitlab", "other"]

_MARKS: tuple[tuple[str, Engine], ...] = (
    ("/run/.containerenv", "podman"),
    ("/.dockerenv", "docker"),
)
_ALLOW_NAMESPACES: dict[Engine, str] = {
    "docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
    "podman": "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt label=disable",
    "kubernetes": "in the container's securityContext: seccompProfile: {type: Unconfined},"
    " appArmorProfile: {type: Unconfined}",
    "github": "in the job: container: {options: --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined}; or without container:",
    "gitlab": "in the runner's config.toml, [runners.docker]:"
    ' security_opt = ["seccomp:unconfined", "apparmor:unconfined"], or privileged = true',
    "other": "start the outer container with --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined, or with --privileged",
}
_ALLOW_PROC: dict[Engine, str] = {
    "docker": "docker run --security-opt systempaths=unconfined",
    "podman": "podman run --security-opt unmask=ALL",
    "kubernetes": "in the container's securityContext: procMount: Unmasked, in a pod with"
    " hostUsers: false",
    "github": "in the job: container: {options: --security-opt systempaths=unconfined}",
    "gitlab": "in the runner's config.toml, [runners.docker]: privileged = true",
    "other": "start the outer container with --security-opt systempaths=unconfined (docker) or"
    " --security-opt unmask=ALL (podman)",
}


def outer_engine() -> Engine | None:
    """Return who made the container that this process is in, None where there seems to be none."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    engine = next((name for path, name in _MARKS if os.path.exists(path)), None)
    if engine is not None and os.environ.get("GITLAB_CI") == "true":
        return "gitlab"
    if engine is not None and os.environ.get("GITHUB_ACTIONS") == "true":
        return "github"
    return engine


def how_to_allow_namespaces() -> str:
    """Return what allows user namespaces, and mounts in them, in the container around."""
    return _ALLOW_NAMESPACES[outer_engine() or "other"]


def how_to_allow_proc() -> str:
    """Return what allows a /proc of one's own there."""
    return _ALLOW_PROC[outer_engine() or "other"]


def is_service_with_sudo() -> bool:
    """Tell whether this is a machine of GitHub's, where any step may become root."""
    return os.environ.get("GITHUB_ACTIONS") == "true" and outer_engine() is None
