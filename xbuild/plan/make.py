"""Deciding: request, survey and facts in; a plan, or the reason why there is none, out."""

from __future__ import annotations

import os

from xbuild.emulation.rules import derive_rule
from xbuild.errors import UsageError
from xbuild.plan import steps
from xbuild.plan.emulate import choose_emulation, host_entries
from xbuild.plan.guest import read_guest
from xbuild.plan.host import Host
from xbuild.plan.identities import check_mapped, choose_identities, may_have_roots_number
from xbuild.plan.lifecycle import Enlist, LimitTime, LockTree, default_name
from xbuild.plan.naming import hostname_of
from xbuild.plan.privileges import privilege_steps
from xbuild.plan.request import LIMITS
from xbuild.plan.view import View
from xbuild.record import GuestPath, HostPath, replace
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_at_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.plan.disk import Disk
    from xbuild.plan.emulate import Emulation
    from xbuild.plan.guest import Guest
    from xbuild.plan.ids import Identities
    from xbuild.plan.limits import LimitResources
    from xbuild.plan.native import Native
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Namespace, Plan, Step
    from xbuild.tree.resolve import TreeReader
    from xbuild.tree.survey import Survey

_WITH_IDS_OF_THE_HOST = ("identity", "nested")  # kinds of Identities: root may be the host's
PER_LINUX32 = 0x0008  # linux/personality.h
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# P: programs see their own argv[0], which busybox applets go by. O: programs of mode 0711 run.
# F: the interpreter is opened now, so that chroots inside the container find it as well.
PRIVATE_FLAGS = "POF"
# C: setuid programs work, in a registry that only this container sees.
_SETUID_FLAGS = "POCF"


def plan_run(request: Request, *, remember: bool) -> Plan:
    """Read the tree and the host, and decide: what ``xbuild run`` does before it acts.

    An interpreter not met before is verified by running it; what is learnt is kept if
    ``remember``. Raises XbuildError subclasses that say why there can be no plan.
    """
    if os.path.isfile(request.target):
        from xbuild.tree.target import no_tree  # only for a mistake

        raise no_tree(request.target)
    host = Host.probe()
    with DirectoryReader(request.target) as reader:
        reader.remember_places()
        return plan_tree(request, host, reader, remember=remember)


def plan_tree(
    request: Request,
    host: Host,
    reader: TreeReader,
    *,
    remember: bool,
    disk: Disk | None = None,
    survey: Survey | None = None,
) -> Plan:
    """Read an open tree, which may be that of an image, and decide: see plan_run().

    ``survey`` describes one that is no directory.
    """
    if request.boot:
        from xbuild.plan.booting import check_boot, with_init  # off the start path

        check_boot(request)
        request = with_init(request, reader)
        if request.link_journal != "no" or request.register != "no":
            from xbuild.plan.machines import with_host_links  # off the start path

            request = with_host_links(request, reader)
    if request.boot or any(getattr(request, name) is not None for name in LIMITS):
        from xbuild.plan.limiting import read_hierarchies  # off the start path

        host = replace(host, hierarchies=read_hierarchies())
    if survey is None:
        assert isinstance(reader, DirectoryReader)
        survey = survey_at_start(reader, _places_of(request.command))
    if may_have_roots_number(request, host, disk.root.filesystem if disk else None):
        host = host.with_changeable_proc_entries()
    if request.network not in ("host", "none"):
        from xbuild.plan.networking import read_network  # off the start path

        host = replace(host, network=read_network())
    emulations = choose_emulation(survey, request, host, remember=remember)
    native: Native | None = None
    if request.native != "off":
        from xbuild.plan.native import choose_native  # off the start path

        native, emulations = choose_native(reader, request, emulations, remember=remember)
    registered = tuple(
        GuestPath(e.entry.interpreter)
        for e in emulations
        if e.entry is not None and e.interpreter is not None
    )
    guest = read_guest(reader, request, registered)
    return make_plan(request, survey, host, guest, emulations, disk, native)


def _places_of(command: tuple[str, ...]) -> tuple[GuestPath, ...]:
    """Return where in the tree a command is looked for, as far as that is known beforehand."""
    name = command[0] if command else ""
    if "/" in name:
        return (GuestPath(name),) if name.startswith("/") else ()
    return tuple(GuestPath(f"{d}/{name}") for d in DEFAULT_PATH.split(":")) if name else ()


def make_plan(
    request: Request,
    survey: Survey,
    host: Host,
    guest: Guest,
    emulations: tuple[Emulation, ...],
    disk: Disk | None = None,
    native: Native | None = None,
) -> Plan:
    """Decide every step of one run; the tree is on ``disk`` where the target is an image. Pure.

    Raises UsageError, TargetError, HostUnable for a request that cannot be met.
    """
    ids = choose_identities(request, survey, host, disk.root.filesystem if disk else None)
    assert survey.arch is not None
    view = View(request, host, guest, ids, narrow_inodes=survey.arch.bits == 32, disk=disk)
    view.assemble(emulations, native)
    outer: list[Step] = []
    if ids.outer is not None:
        outer.append(steps.EnterNamespaces(("user",), ids.outer))
    if disk is not None and disk.is_served:
        from xbuild.plan.disk import open_steps  # only for images

        outer += open_steps(disk)
    limits = _limits(request, host)
    plan: list[Step] = [
        *_lifecycle_steps(request, is_image=disk is not None),
        *request.host_links,
        *limits,
        *outer,
        steps.BecomeInit(),
        *_first_namespaces(host, ids, limits),
        *([steps.ForkGuestInit(ids.inner)] if request.as_pid1 or request.boot else []),
        *view.steps,
        *_boot_view(request, guest, ids, emulations),
        steps.Pivot(),
        *_inner_steps(request, host, ids, view, emulations),
        *request.copies_in,
        *request.copies_out,
        *privilege_steps(request),
        _exec_step(request, survey, guest, ids, emulations),
    ]
    notes = (
        *ids.notes,
        *view.notes,
        *_setuid_notes(request, guest),
        *_emulation_notes(survey, emulations),
        *_cpu_notes(request, emulations),
        *_exposure_notes(host, ids, emulations),
        *_boot_notes(request, emulations),
    )
    return steps.Plan(request.target, tuple(plan), notes, host_entries(emulations))


def _lifecycle_steps(request: Request, *, is_image: bool) -> Iterator[Step]:
    """Yield what the launcher does first."""
    if (request.exclusive or not request.ephemeral) and not is_image:
        yield LockTree(request.target, request.exclusive)
    yield Enlist(
        request.name or default_name(request.target),
        request.name is not None,
        request.target,
        request.ephemeral,
        request.detached and not request.held,
        request.detached or request.name is not None,
        request.boot,
    )
    if request.timeout_s is not None or request.idle_timeout_s is not None:
        yield LimitTime(request.timeout_s, request.idle_timeout_s, request.kill_timeout_s)


def _limits(request: Request, host: Host) -> tuple[LimitResources, ...]:
    if host.hierarchies is None:
        return ()
    from xbuild.plan.limiting import limit_resources  # off the start path

    limits = limit_resources(request, host.hierarchies)
    if request.init is not None:
        from xbuild.plan.booting import control_group  # loaded before

        limits = control_group(request, host.hierarchies, limits)
    return (limits,) if limits.groups else ()


def _first_namespaces(
    host: Host, ids: Identities, limits: tuple[LimitResources, ...]
) -> list[Step]:
    if any(group.is_delegated for step in limits for group in step.groups):
        from xbuild.plan.limits import RootCgroups  # off the start path

        mount = steps.EnterNamespaces(("mount",))
        return [mount, steps.PrivateMounts(), RootCgroups(ids.owner)]
    entered: tuple[Namespace, ...] = (
        ("mount", "cgroup") if host.has_cgroup_namespaces else ("mount",)
    )
    return [steps.EnterNamespaces(entered), steps.PrivateMounts()]


def _boot_view(
    request: Request, guest: Guest, ids: Identities, emulations: tuple[Emulation, ...]
) -> tuple[Step, ...]:
    if request.init is None:
        return ()
    from xbuild.plan.booting import view_steps  # loaded before

    return tuple(view_steps(request, guest, ids, emulations))


def _inner_steps(
    request: Request, host: Host, ids: Identities, view: View, emulations: tuple[Emulation, ...]
) -> list[Step]:
    inner: tuple[Namespace, ...] = ("user", "mount", "ipc", "uts")
    if request.network != "host":
        inner = (*inner, "network")
    found: list[Step] = [steps.EnterNamespaces(inner, ids.inner)]
    if host.can_limit_namespaces:
        found.append(steps.ForbidNamespaces("cgroup"))
    found.append(steps.Mqueue(view.mqueue))
    if request.network != "host":
        has_groups = request.init is not None and request.init.kind == "systemd"
        kept = (GuestPath(f"{view.sysfs}/fs/cgroup"),) if has_groups else ()
        found += [steps.Sysfs(view.sysfs, kept), steps.LoopbackUp()]
    if request.network not in ("host", "none"):
        from xbuild.plan.networking import attach_step  # off the start path

        assert host.network is not None
        found.append(attach_step(request, host, host.network))
    private = [e for e in emulations if e.way == "private"]
    if private or _hides_registry(host, ids, emulations):
        found.append(steps.MountBinfmt())
    for emulation in private:
        assert emulation.interpreter is not None
        path = view.interpreter_path(emulation)
        rule = derive_rule(
            emulation.arch,
            interpreter=HostPath(path),
            flags=_SETUID_FLAGS if request.setuid else PRIVATE_FLAGS,
            name=f"qemu-{emulation.arch.name}",
        )
        found.append(
            steps.Register(emulation.arch.name, path, emulation.interpreter.path, rule.line())
        )
    found.append(steps.Hostname(hostname_of(request), request.hostname is not None))
    return found


def _hides_registry(host: Host, ids: Identities, emulations: tuple[Emulation, ...]) -> bool:
    """Whether a registry without entries keeps the host's interpreters from a guest.

    By an inherited entry with flag F, /proc/PID/exe is a file of the host's, which a guest's root
    that has the number of the host's could make set-user-ID.
    """
    return (
        ids.kind in _WITH_IDS_OF_THE_HOST
        and host.has_private_binfmt
        and all(emulation.way != "host" for emulation in emulations)
    )


def _exec_step(
    request: Request,
    survey: Survey,
    guest: Guest,
    ids: Identities,
    emulations: tuple[Emulation, ...],
) -> steps.Exec:
    account = guest.account
    shell = account.shell or survey.shell
    argv = request.command
    if not argv:
        if shell is None:
            raise UsageError(
                f"{request.target} has neither /bin/bash nor /bin/sh to start",
                "name a command: xbuild run TREE -- /path/to/program",
            )
        argv = (shell, "-l")
    check_mapped(account, ids)
    home, top = (account.home if guest.home_exists else GuestPath("/")), GuestPath("/")
    return steps.Exec(
        argv,
        _environment(request, guest, shell),
        request.directory or home,
        account.uid,
        account.gid,
        account.groups if ids.inner.has_setgroups else None,
        PER_LINUX32 if emulations[0].way == "native32" else None,
        request.terminal,
        top if request.directory is None and home != top else None,
        request.held,
        request.as_pid1 or request.boot,
        request.piped,
        request.init,
    )


def _environment(
    request: Request, guest: Guest, shell: GuestPath | None
) -> tuple[tuple[str, str], ...]:
    account = guest.account
    environment = {
        "PATH": DEFAULT_PATH,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": shell or "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": request.term or "dumb",
        "container": "xbuild",
    }
    if request.cpu is not None:
        environment["QEMU_CPU"] = request.cpu
    environment.update(request.environment)
    return tuple(environment.items())


def _exposure_notes(
    host: Host, ids: Identities, emulations: tuple[Emulation, ...]
) -> Iterator[str]:
    """Yield what this container does not keep from its guest: docs/security.md."""
    if ids.kind in _WITH_IDS_OF_THE_HOST:
        for emulation in emulations:
            if emulation.entry is not None and "F" in emulation.entry.flags:
                yield (
                    f"root inside may change the mode of {emulation.entry.interpreter}, which the"
                    " host's registry keeps open: run only what you trust"
                )
    if not host.can_limit_namespaces:
        yield "/proc/sys is read-only here: root inside may mount the cgroups that xbuild is in"


def _boot_notes(request: Request, emulations: tuple[Emulation, ...]) -> Iterator[str]:
    if request.init is None:
        return
    from xbuild.plan.booting import check_emulated_init  # loaded before

    yield from check_emulated_init(request, emulations)
    if request.network == "host":
        yield (
            "what is booted shares the host's network: its services listen there, and it can change"
            " no interface; --network none and private give it its own"
        )


def _setuid_notes(request: Request, guest: Guest) -> Iterator[str]:
    if guest.setuid_command is not None and not request.setuid:
        yield f"{guest.setuid_command} is a set-user-ID program, which gains nothing: add --setuid"


def _emulation_notes(survey: Survey, emulations: tuple[Emulation, ...]) -> list[str]:
    notes = [
        f"its {e.arch.common_name} programs will not run: {e.problem}"
        for e in emulations
        if e.way == "missing"
    ]
    if survey.is_loader_missing:
        notes.append(
            f"the tree has no {survey.loader}, the loader that {survey.leading_program} names:"
            " only static programs will start"
        )
    return notes


def _cpu_notes(request: Request, emulations: tuple[Emulation, ...]) -> Iterator[str]:
    """Yield what a processor model that was asked for does besides, or does not."""
    emulated = [e.arch.common_name for e in emulations if e.way in ("private", "host")]
    if request.cpu is None or len(emulated) == 1:
        return
    if not emulated:
        yield "--cpu is for qemu, and nothing in this tree is emulated"
        return
    yield (
        f"--cpu {request.cpu} is for every emulated architecture of this tree"
        f" ({', '.join(emulated)}): programs of one that lacks it will not start"
    )
