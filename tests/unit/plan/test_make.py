"""What make_plan decides, as the text that people read: tests/unit/plan/golden.

``XBUILD_WRITE_GOLDEN=1`` writes the files anew; look at the difference before you keep it.
"""

from __future__ import annotations

import os

import pytest

from tests.unit.plan.records import (
    DIRECTORY,
    FILE,
    IMAGE,
    PROC_MOUNT,
    ROOT_MOUNT,
    TREE,
    V1_GROUPS,
    V2_SCOPE,
    Facts,
    by_host,
    disk,
    facts,
    file,
    guest,
    host,
    native,
    place,
    plan_of,
    private,
    request,
    served_disk,
    survey,
    tmpfs_facts,
    user_host,
)
from xbuild.binary.arch import arch_named
from xbuild.plan import lifecycle, limits, steps
from xbuild.plan.copies import CopyIn, CopyOut
from xbuild.plan.emulate import Emulation
from xbuild.plan.explain import explain
from xbuild.plan.guest import Account
from xbuild.plan.host import Mount, NetworkFacts, SubIds
from xbuild.plan.ids import IdRange
from xbuild.plan.inits import Init
from xbuild.plan.limiting import Hierarchies
from xbuild.plan.networks import Forward
from xbuild.plan.request import BindRequest, OverlayRequest, TmpfsRequest
from xbuild.record import GuestPath, HostPath

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")

BINDS = {
    "request": request(
        binds=(
            BindRequest(HostPath("/srv/cache"), GuestPath("/var/cache/new"), read_only=True),
            BindRequest(HostPath("/dev/kvm"), GuestPath("/dev/kvm")),
            BindRequest(HostPath("/srv/below"), GuestPath("/scratch/below")),
            BindRequest(HostPath("/srv/config"), GuestPath("/etc/new.conf")),
        ),
        tmpfs=(TmpfsRequest(GuestPath("/scratch"), (("size", "2g"),), 0o755),),
    ),
    "guest": guest(
        binds=(
            place("/var/cache", "new"),
            place("/dev", "kvm", covered=True),
            place("/", "scratch", "below"),
            place("/etc", "new.conf"),
        ),
        source_modes=(DIRECTORY, 0o20666, DIRECTORY, FILE),
        tmpfs=(place("/", "scratch"),),
    ),
}

NETWORK = NetworkFacts(HostPath("/usr/bin/slirp4netns"), HostPath("/usr/sbin/ip"), "0" * 32)
V1 = Hierarchies(V1_GROUPS, writable=frozenset(place for _, place in V1_GROUPS))
V2 = Hierarchies(
    (("", V2_SCOPE),),
    ("cpu", "io", "memory", "pids"),
    HostPath(f"{V2_SCOPE}/shell"),
    frozenset((V2_SCOPE,)),
)

CASES: dict[str, Facts] = {
    "root-shifted": facts(),
    "root-identity": facts(request=request(private_users="identity")),
    "root-without-idmapped-mounts": facts(
        host=host(mounts=(ROOT_MOUNT, PROC_MOUNT, Mount(TREE, "nfs4", 22, 20)))
    ),
    "image": facts(request=request(target=IMAGE), disk=disk()),
    "user-with-subordinate-ids": facts(host=user_host()),
    "user-whose-tree-is-subordinate": facts(
        host=user_host(), survey=survey(owner=100000, owner_gid=100000)
    ),
    "user-with-one-id": facts(
        host=user_host(sub_uids=(), sub_gids=(), has_newuidmap=False), survey=survey(owner=1000)
    ),
    "nested-root": facts(
        host=host(privileged=False, own_uids=(SubIds(0, 1000),), has_cgroup_namespaces=False)
    ),
    "ephemeral": facts(request=request(ephemeral=True), host=user_host()),
    "image-as-a-user": facts(
        host=user_host(),
        survey=survey(owner=-1, owner_gid=-1),
        request=request(target=IMAGE),
        disk=served_disk(),
    ),
    "boot": facts(
        request=request(
            boot=True,
            command=("/sbin/init",),
            init=Init("systemd", 0, ("/bin/sh", "-c", "kill -37 1"), 252),
            network="none",
            terminal=(0, 1, 2),
            term="vt220",
            host_links=(
                lifecycle.LinkJournal(HostPath("/var/log/journal/a"), HostPath("/srv/a")),
                lifecycle.RegisterMachine(
                    HostPath("/usr/bin/busctl"), "unix:path=/run/bus", TREE, "ab" * 16, True
                ),
            ),
        ),
        host=host(hierarchies=V2),
    ),
    "process-one": facts(request=request(as_pid1=True), host=user_host()),
    "network-none": facts(request=request(network="none", hostname="board-1")),
    "binds-with-scaffolds": facts(**BINDS),
    "layers": facts(
        request=request(
            persist=HostPath("/srv/changes"),
            overlays=(
                OverlayRequest(
                    (HostPath("/srv/a"), HostPath("/srv/b")),
                    HostPath("/srv/upper"),
                    GuestPath("/mnt"),
                ),
                OverlayRequest((HostPath("/srv/a"), HostPath("/srv/b")), None, GuestPath("/opt/x")),
            ),
            inaccessible=(GuestPath("/etc/shadow"), GuestPath("/boot")),
            binds=(
                BindRequest(
                    HostPath("/srv/cache"),
                    GuestPath("/var/cache"),
                    recursive=False,
                    noexec=True,
                    nosuid=False,
                ),
            ),
            tmpfs=(TmpfsRequest(GuestPath("/scratch"), (("uid", "5"),), noexec=True),),
        ),
        guest=guest(
            overlays=(place("/mnt"), place("/opt", "x")),
            hidden=(file("/etc/shadow"), place("/boot")),
            binds=(place("/var/cache"),),
            source_modes=(DIRECTORY,),
            tmpfs=(place("/scratch"),),
        ),
    ),
    "limits-v1": facts(
        request=request(memory=1 << 29, cpus=1.5, pids=100, io_weight=5000),
        host=host(hierarchies=V1),
    ),
    "limits-v2": facts(
        request=request(memory=1 << 29, cpus=0.25, pids=100, io_weight=5000),
        host=host(hierarchies=V2),
    ),
    "network-private": facts(
        request=request(
            network="private",
            forwards=(Forward("tcp", "0.0.0.0", 8080, 80), Forward("udp", "127.0.0.1", 53, 53)),
        ),
        host=user_host(network=NETWORK),
    ),
    "network-bridge": facts(
        request=request(network="bridge", bridge="br0", name="web"), host=host(network=NETWORK)
    ),
    "given-ids": facts(
        request=request(
            uid_map=(IdRange(0, 300000, 1000), IdRange(1000, 400000, 1)),
            gid_map=(IdRange(0, 300000, 3),),
        )
    ),
    "copies": facts(
        request=request(
            copies_in=(CopyIn(HostPath("/srv/source"), GuestPath("/src")),),
            copies_out=(CopyOut(GuestPath("/src/out"), HostPath("/srv/out")),),
        )
    ),
    "volatile": facts(
        request=request(volatile=True),
        guest=guest(home_exists=False, links=(("bin", "usr/bin"), ("lib", "usr/lib"))),
    ),
    "privileges": facts(
        request=request(
            setuid=True, capabilities=("sys_time",), drop_capabilities=("net_raw",), no_sync=True
        )
    ),
    "no-seccomp": facts(
        request=request(user="joe", drop_capabilities=("all",), seccomp="off"),
        guest=guest(setuid_command=GuestPath("/usr/bin/sudo")),
    ),
    "alone-and-limited": facts(
        request=request(name="mine", exclusive=True, timeout_s=60.0, idle_timeout_s=5.0)
    ),
    "held": facts(request=request(held=True, detached=True)),
    "native-32-bit": facts(
        survey=survey("i386"), emulations=(Emulation(arch_named("i386"), "native32"),)
    ),
    "masked-proc": facts(
        host=user_host(
            mounts=(
                ROOT_MOUNT,
                PROC_MOUNT,
                Mount(HostPath("/proc/acpi"), "tmpfs", 22, 21),
                Mount(HostPath("/proc/sys"), "proc", 23, 21),
            )
        )
    ),
    "host-entry-without-f": facts(
        request=request(binfmt="host"),
        emulations=(by_host(flags="P"),),
        guest=guest(interpreters=(place("/usr/libexec", "qemu-binfmt", "aarch64"),)),
    ),
    "host-entry-with-f": facts(host=host(kernel=(6, 1)), emulations=(by_host(flags="POF"),)),
    "mixed-architectures": facts(
        survey=survey("aarch64", architectures=("aarch64", "arm", "mips")),
        emulations=(
            private("aarch64"),
            private("arm"),
            Emulation(arch_named("mips"), "missing", problem="No interpreter for mips programs"),
        ),
    ),
    "native-tools": facts(native=native()),
    "native-tools-bound": facts(native=native("bind", notes=("bound, for a reason",))),
    "another-user-on-a-terminal": facts(
        request=request(
            command=(),
            user="joe",
            directory=GuestPath("/srv"),
            environment=(("LANG", "de_DE.UTF-8"), ("ODD", "a b'c")),
            terminal=(0, 1, 2),
            term="xterm-256color",
            cpu="cortex-a53",
        ),
        guest=guest(
            account=Account(
                "joe", 1000, 100, (100, 27), GuestPath("/home/joe"), GuestPath("/bin/zsh")
            )
        ),
    ),
    "empty-tree": facts(
        survey=survey("arm", shell=None, loader=None, libc=None),
        emulations=(private("arm"),),
        guest=guest(
            api=tuple(place("/", name) for name in ("proc", "sys", "dev", "run", "tmp")),
            resolv_conf=place("/", "etc", "resolv.conf"),
            hosts=place("/", "etc", "hosts"),
            home_exists=False,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plans_read_as_before(name: str) -> None:
    path = os.path.join(GOLDEN, f"{name}.txt")
    text = explain(plan_of(CASES[name])) + "\n"
    if os.environ.get("XBUILD_WRITE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    with open(path, encoding="utf-8") as stream:
        assert text == stream.read()


def test_every_golden_file_has_its_case() -> None:
    assert sorted(os.listdir(GOLDEN)) == sorted(f"{name}.txt" for name in CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_plan_begins_privately_and_ends_with_the_command(name: str) -> None:
    """Nothing is mounted before propagation is cut, nothing of the host's after the pivot."""
    plan = plan_of(CASES[name])
    kinds = [type(step) for step in plan.steps]
    assert kinds.count(steps.Pivot) == kinds.count(steps.PrivateMounts) == 1
    assert isinstance(plan.command, steps.Exec)
    first = kinds.index(steps.PrivateMounts)
    own = {lifecycle.LockTree, lifecycle.Enlist, lifecycle.LimitTime, limits.LimitResources}
    outside = {steps.OpenImage, steps.CheckFilesystem, steps.ServeFilesystem}  # mounts of their own
    own |= {lifecycle.LinkJournal, lifecycle.RegisterMachine}
    allowed = {*own, steps.EnterNamespaces, steps.BecomeInit, *outside}
    assert set(kinds[:first]) <= allowed
    after = kinds[kinds.index(steps.Pivot) :]
    assert not {steps.Bind, steps.MountTree, steps.MountOverlay, steps.Scaffold} & set(after)
    assert steps.EnterNamespaces in after


@pytest.mark.parametrize("name", CASES)
def test_plans_are_values(name: str) -> None:
    """The same facts give the same plan, and hashing it works: nothing mutable is in it."""
    assert plan_of(CASES[name]) == plan_of(CASES[name])
    assert hash(plan_of(CASES[name])) == hash(plan_of(CASES[name]))


def test_32_bit_trees_get_narrow_inode_numbers() -> None:
    plan = plan_of(facts(survey=survey("arm"), emulations=(private("arm"),), **tmpfs_facts("/mnt")))
    for step in plan.steps:
        if isinstance(step, steps.Tmpfs) and step.target != "/dev":
            assert ("inode32", None) in step.options, step.target
    plan = plan_of(facts(**tmpfs_facts("/mnt")))
    assert "inode32" not in explain(plan)
