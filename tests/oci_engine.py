"""Containers as docker and podman make them by default, by crun(1): of this host's own files.

What an engine withholds is in its run-time configuration (opencontainers/runtime-spec): masked and
read-only paths, capabilities, a seccomp profile. It is given here as moby's profiles have it
(profiles/seccomp/default.json and oci/defaults.go), or podman's (pkg/seccomp/seccomp.json of
containers/common), for processes without CAP_SYS_ADMIN.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from typing import Any, Literal

from tests.capability import require
from tests.patience import WORK_S
from tests.runs import Runner

Allowed = Literal["seccomp", "systempaths"]
Engine = Literal["docker", "podman"]
_MARKS: dict[Engine, str] = {"docker": ".dockerenv", "podman": "run/.containerenv"}
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
    *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_FOR_ADMINISTRATORS = (
    *("bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "mount"),
    *("mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "setdomainname"),
    *("sethostname", "setns", "syslog", "umount", "umount2", "unshare"),
)
_FOR_ADMINISTRATORS_OF_PODMAN = (
    *("bpf", "fanotify_init", "lookup_dcookie", "perf_event_open", "quotactl"),
    *("setdomainname", "sethostname"),
)
_FOR_NOBODY = ("add_key", "keyctl", "request_key", "pivot_root", "swapon", "kexec_load")
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*
_EPERM, _ENOSYS = 1, 38


def run_contained(
    runner: Runner,
    arguments: list[str],
    *,
    engine: Engine = "docker",
    allowed: tuple[Allowed, ...] = (),
    environment: dict[str, str] | None = None,
    image: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command line of this host's in such a container, as the runner's user.

    The shell script ``image`` changes the container's files beforehand, in its working directory.
    To be called by root. All that is made is in a mount namespace that ends with it.
    """
    require("crun", shutil.which("crun") is not None, "the package crun is not installed")
    require("root", os.geteuid() == 0, "containers of an engine are made by root")
    config = _config(runner, arguments, engine, allowed, environment or {})
    script = f"""
        set -e
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work /mnt/root /mnt/state
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
        mkdir -p /mnt/root/run
        touch /mnt/root/{_MARKS[engine]}
        (cd /mnt/root; {image or ":"})
        printf '%s' {shlex.quote(json.dumps(config))} >/mnt/config.json
        cd /mnt
        exec crun --cgroup-manager=disabled --root /mnt/state run contained-$$
        """
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=WORK_S,
        stdin=subprocess.DEVNULL,
    )


def _config(
    runner: Runner,
    arguments: list[str],
    engine: Engine,
    allowed: tuple[Allowed, ...],
    environment: dict[str, str],
) -> dict[str, Any]:  # Any: a document of runtime-spec's
    user = runner.user
    names = [f"CAP_{name}" for name in _CAPABILITIES]
    own = names if user.uid == 0 else []
    variables = user.environment(**environment)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        "maskedPaths": [] if "systempaths" in allowed else list(_MASKED),
        "readonlyPaths": [] if "systempaths" in allowed else list(_READ_ONLY),
    }
    if "seccomp" not in allowed:
        linux["seccomp"] = _profile_of_podman() if engine == "podman" else _profile()
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": user.uid, "gid": user.gid},
            "args": arguments,
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": user.home,
            "capabilities": {
                "bounding": names,
                **dict.fromkeys(("effective", "permitted"), own),
            },
        },
        "root": {"path": "root"},
        "hostname": "contained",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
            _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777"),
            _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/tmp", "tmpfs", "mode=1777"),
        ],
        "linux": linux,
    }


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def _profile_of_podman() -> dict[str, Any]:
    names = list(_FOR_ADMINISTRATORS_OF_PODMAN)
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def _profile() -> dict[str, Any]:
    """Return what moby's profile refuses to processes without CAP_SYS_ADMIN."""
    flags = [1 << bit for bit in range(32) if _NAMESPACE_FLAGS >> bit & 1]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": [*_FOR_ADMINISTRATORS, *_FOR_NOBODY],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _EPERM,
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *(
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": _EPERM,
                    "args": [
                        {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}
                    ],
                }
                for flag in flags
            ),
        ],
    }
