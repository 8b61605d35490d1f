"""One step, applied: the only place that maps the plan's vocabulary to system calls."""

from __future__ import annotations

import os
import sys

from xbuild.plan import copies, limits, networks, privileges, steps
from xbuild.record import assert_never
from xbuild.sandbox import _linux, mounts, network
from xbuild.sandbox.namespaces import forbid_namespaces
from xbuild.sandbox.privileges import filter_calls, limit_privileges
from xbuild.sandbox.stage import Stage, device_node, directory, symlink, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan import layers

    OnImage = (
        steps.OpenImage
        | steps.AttachLoop
        | steps.CheckFilesystem
        | steps.MountFilesystem
        | steps.ServeFilesystem
    )
    Layer = layers.OverlayAt | layers.MountPersistent | layers.MountVolatile | layers.Hide
    Ordinary = (
        OnImage
        | Layer
        | steps.ForbidNamespaces
        | steps.PrivateMounts
        | steps.MountTree
        | steps.MountOverlay
        | steps.Scaffold
        | steps.Tmpfs
        | steps.Bind
        | steps.ReadOnlyOver
        | steps.Proc
        | steps.Sysfs
        | steps.Mqueue
        | steps.Devpts
        | steps.DeviceNode
        | steps.Directory
        | steps.Symlink
        | steps.WriteFile
        | steps.Show
        | steps.Substitute
        | steps.Pivot
        | steps.MountBinfmt
        | steps.Register
        | steps.Hostname
        | steps.LoopbackUp
        | networks.AttachUserNetwork
        | networks.AttachVeth
        | limits.RootCgroups
        | limits.MountCgroup
        | copies.CopyIn
        | copies.CopyOut
        | privileges.LimitPrivileges
        | privileges.FilterCalls
    )


def apply(stage: Stage, step: Ordinary) -> None:
    """Do one step in the calling process, which must be a child made for it.

    Raises OSError with the path or parameter at fault. Steps that change the process itself
    (EnterNamespaces, BecomeInit, Exec) belong to ``assembly``.
    """
    match step:
        case steps.ForbidNamespaces(namespace):
            forbid_namespaces(stage.limits, namespace)
        case steps.PrivateMounts():
            _linux.set_propagation("/", _linux.MS_REC | _linux.MS_PRIVATE)
        case steps.MountTree():
            mounts.mount_tree(stage, step)
        case steps.MountOverlay():
            mounts.mount_overlay(stage, step)
        case steps.Scaffold():
            mounts.scaffold(stage, step)
        case steps.Tmpfs():
            mounts.tmpfs(stage, step)
        case steps.Bind():
            mounts.bind(stage, step)
        case steps.ReadOnlyOver():
            mounts.read_only_over(stage, step)
        case steps.Proc():
            mounts.proc(stage, step)
        case steps.Sysfs():
            mounts.sysfs(stage, step)
        case steps.Mqueue():
            mounts.mqueue(stage, step)
        case steps.Devpts():
            mounts.devpts(stage, step)
        case steps.DeviceNode():
            device_node(stage, step)
        case steps.Directory():
            directory(stage, step)
        case steps.Symlink():
            symlink(stage, step)
        case steps.WriteFile():
            write_file(stage, step)
        case steps.Show():
            mounts.show(stage, step)
        case steps.Substitute():
            from xbuild.sandbox.substitute import write_table  # off the start path

            write_table(stage, step)
        case steps.Pivot():
            stage.keep_limits()
            _forget_imports()
            mounts.pivot(stage)
        case steps.MountBinfmt():
            stage.binfmt = mounts.new_mount("binfmt_misc", (), 0)
        case steps.Register(_, _, _, line):
            _register(stage, line)
        case steps.Hostname(name, is_required):
            _set_hostname(name, is_required=is_required)
        case steps.LoopbackUp():
            network.loopback_up()
        case privileges.LimitPrivileges():
            limit_privileges(step)
        case privileges.FilterCalls():
            filter_calls(step)
        case steps.OpenImage() | steps.AttachLoop() | steps.CheckFilesystem():
            _apply_to_image(stage, step)
        case steps.MountFilesystem() | steps.ServeFilesystem():
            _apply_to_image(stage, step)
        case copies.CopyIn() | copies.CopyOut():
            _copy(stage, step)
        case limits.RootCgroups() | limits.MountCgroup():
            _delegate(stage, step)
        case networks.AttachUserNetwork() | networks.AttachVeth():
            network.ask_launcher(stage.network)
        case _:
            from xbuild.sandbox.layers import apply_layer  # off the start path

            apply_layer(stage, step)


def _set_hostname(name: str, *, is_required: bool) -> None:
    try:
        _linux.sethostname(name)
    except PermissionError:
        if is_required:
            raise


def _copy(stage: Stage, step: copies.CopyIn | copies.CopyOut) -> None:
    from xbuild.sandbox.copying import pack, unpack  # the launcher has loaded it

    into, out = stage.copies
    if isinstance(step, copies.CopyIn):
        unpack(into, step.target)
        return
    place = step.source
    stage.kept.add(out)
    stage.at_end.append(lambda: pack(place, out))


def _delegate(stage: Stage, step: limits.RootCgroups | limits.MountCgroup) -> None:
    from xbuild.sandbox import delegation  # off the start path

    if isinstance(step, limits.RootCgroups):
        delegation.root_cgroups(stage, step)
    else:
        delegation.mount_cgroup(stage, step)


def _apply_to_image(stage: Stage, step: OnImage) -> None:
    from xbuild.sandbox import disks  # off the start path: most plans are for directories

    match step:
        case steps.OpenImage():
            disks.open_image(stage, step)
        case steps.AttachLoop():
            disks.attach(stage, step)
        case steps.CheckFilesystem():
            disks.check(stage, step)
        case steps.MountFilesystem():
            disks.mount_filesystem(stage, step)
        case steps.ServeFilesystem():
            from xbuild.sandbox import serving

            serving.serve(stage, step)
        case _:
            assert_never(step)


def _register(stage: Stage, line: bytes) -> None:
    fd = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=stage.binfmt)
    try:
        os.write(fd, line)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "register") from error
    finally:
        os.close(fd)


_forgotten: list[object] = []


def _forget_imports() -> None:
    """Make any later import fail: from here on, paths lead into the untrusted tree."""
    sys.path.clear()
    sys.path_hooks.clear()
    sys.meta_path.clear()
    # Exchanged, not cleared: to free what was listed of directories takes 0.2 ms.
    _forgotten.append(sys.path_importer_cache)
    sys.path_importer_cache = {}
