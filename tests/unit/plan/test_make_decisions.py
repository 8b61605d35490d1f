"""Single decisions of make_plan: what it refuses, and what it says."""

from __future__ import annotations

import pytest

from tests.unit.plan.records import (
    DIRECTORY,
    FILE,
    PROC_MOUNT,
    ROOT_MOUNT,
    TREE,
    V1_GROUPS,
    V2_SCOPE,
    facts,
    file,
    guest,
    host,
    place,
    plan_of,
    private,
    request,
    survey,
    tmpfs_facts,
    user_host,
)
from xbuild.binary.arch import arch_named
from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan import steps
from xbuild.plan.emulate import Emulation
from xbuild.plan.explain import explain
from xbuild.plan.guest import Account
from xbuild.plan.host import Mount
from xbuild.plan.limiting import Hierarchies
from xbuild.plan.request import BindRequest
from xbuild.record import GuestPath, HostPath


@pytest.mark.parametrize("path", ["/", "/dev", "/run"])
def test_the_container_s_own_places_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=f"Cannot mount on {path}:"):
        plan_of(facts(**tmpfs_facts(path)))


@pytest.mark.parametrize(
    ("source_mode", "target", "message"),
    [
        (DIRECTORY, file("/etc/passwd"), "it is no directory"),
        (FILE, place("/mnt"), "it is a directory"),
        (DIRECTORY, place("/etc/passwd", "x", mode=FILE), "/etc/passwd is no directory"),
    ],
)
def test_kinds_of_source_and_target_must_agree(
    source_mode: int, target: object, message: str
) -> None:
    bind = BindRequest(HostPath("/srv/x"), GuestPath("/y"))
    found = guest(binds=(target,), source_modes=(source_mode,))
    with pytest.raises(TargetError, match=message):
        plan_of(facts(request=request(binds=(bind,)), guest=found))


def test_users_cannot_put_an_overlay_over_mounts() -> None:
    proc = Mount(HostPath(f"{TREE}/proc"), "proc", 30, 20)
    mounts = (ROOT_MOUNT, PROC_MOUNT, proc)
    wanted = request(ephemeral=True)
    with pytest.raises(HostUnable, match=f"{TREE}/proc is mounted in it"):
        plan_of(facts(request=wanted, host=user_host(mounts=mounts)))
    assert "overlay" not in plan_of(facts(request=wanted, host=host(mounts=mounts))).notes
    plan = plan_of(facts(host=user_host(mounts=mounts)))
    assert "with what is mounted below" in explain(plan)


def test_no_shell_and_no_command() -> None:
    with pytest.raises(UsageError, match="neither /bin/bash nor /bin/sh"):
        plan_of(facts(request=request(command=()), survey=survey(shell=None)))


@pytest.mark.parametrize("uid", [65536, 0xFFFFFFFF, 10**20])
def test_users_must_be_mapped(uid: int) -> None:
    account = Account("joe", uid, 0, (), GuestPath("/"), None)
    with pytest.raises(HostUnable, match=f"uid {uid} is not mapped"):
        plan_of(facts(guest=guest(account=account)))


def test_groups_must_be_mapped_unless_they_are_not_set() -> None:
    account = Account("joe", 0, 0, (0, 70000), GuestPath("/"), None)
    with pytest.raises(HostUnable, match="gid 70000 is not mapped"):
        plan_of(facts(guest=guest(account=account)))
    single = user_host(sub_uids=(), sub_gids=())
    plan = plan_of(facts(guest=guest(account=account), host=single))
    assert plan.command.groups is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"has_own_proc": False}, "another PID namespace"),
        ({"privileged": False, "can_map_ids": False}, "root lacks CAP_SETUID"),
        ({"privileged": False, "own_uids": ()}, "id 0 is not mapped"),
    ],
)
def test_hosts_that_cannot_map_ids(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HostUnable, match=message):
        plan_of(facts(host=host(**changes)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_newuidmap": False}, "newuidmap is not installed"),
        ({"no_new_privs": True}, "no_new_privs"),
        ({"sub_gids": ()}, "grant you none"),
    ],
)
def test_why_there_is_one_id_only(changes: dict[str, object], reason: str) -> None:
    plan = plan_of(facts(host=user_host(**changes)))
    assert any("one user id only" in note and reason in note for note in plan.notes)


def test_limit_that_nobody_keeps_is_an_error() -> None:
    """Never silently without: not writable, or no such controller."""
    for hierarchies in (
        Hierarchies(V1_GROUPS),
        Hierarchies(()),
        Hierarchies((("", V2_SCOPE),), ("cpu",)),
    ):
        with pytest.raises(HostUnable) as error:
            plan_of(facts(request=request(pids=9), host=host(hierarchies=hierarchies)))
        assert error.value.hint


@pytest.mark.parametrize(
    ("emulations", "said"),
    [
        ((private("aarch64"),), False),
        ((private("aarch64"), private("arm")), "every emulated architecture of this tree (arm64"),
        ((Emulation(arch_named("x86_64"), "native"),), "nothing in this tree is emulated"),
    ],
)
def test_whom_a_processor_model_is_for(emulations: tuple[Emulation, ...], said: str | bool) -> None:
    plan = plan_of(facts(request=request(cpu="max"), emulations=emulations))
    about = " ".join(note for note in plan.notes if "--cpu" in note)
    assert said in about if isinstance(said, str) else about == ""


@pytest.mark.parametrize(
    ("source", "nodev"), [("/dev/dri", False), ("/dev", True), ("/dev/shm/x", True), ("/srv", True)]
)
def test_devices_in_a_bound_directory_can_be_used_and_not_changed(source: str, nodev: bool) -> None:
    devices = Mount(HostPath("/dev"), "devtmpfs", 30, 20)
    memory = Mount(HostPath("/dev/shm"), "tmpfs", 31, 30)
    plan = plan_of(
        facts(
            host=host(mounts=(ROOT_MOUNT, PROC_MOUNT, devices, memory)),
            request=request(binds=(BindRequest(HostPath(source), GuestPath("/mnt")),)),
            guest=guest(binds=(place("/mnt"),), source_modes=(DIRECTORY,)),
        )
    )
    (bind,) = (s for s in plan.steps if isinstance(s, steps.Bind) and s.target == "/mnt")
    assert (bind.nodev, bind.read_only) == (nodev, not nodev)
    assert any("has devices" in note for note in plan.notes) is not nodev
