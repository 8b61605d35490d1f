"""A plan in words and as JSON: one line for each step, the same line that a failure names."""

from __future__ import annotations

from xbuild.plan import copies, layers, lifecycle, limits, networks, privileges, steps
from xbuild.record import Record, assert_never

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.inits import Init
    from xbuild.plan.steps import IdMap, IdRange, Owner, Plan, Step
    from xbuild.plan.substitution import Substitution

SCHEMA = "xbuild.plan/1"
_VERB_WIDTH = 10


def explain(plan: Plan, settings: tuple[tuple[str, str, str], ...] = ()) -> str:
    """Return the plan as text: the steps in order, then what to know about them.

    ``settings`` are a key, its value and where that was said; everything else is as by default.
    """
    lines = [f"plan for {plan.target}"]
    lines += [f"setting: {key} = {value} ({origin})" for key, value, origin in settings]
    for step in plan.steps:
        verb, rest = describe(step)
        lines.append(f"  {verb:<{_VERB_WIDTH}} {rest}".rstrip())
    lines += [
        f"by the host's registry: {each.arch} programs, entry {each.name}: {each.interpreter}"
        f"{f' ({each.flags})' if each.flags else ''}"
        for each in plan.host_entries
    ]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def describe(step: Step) -> tuple[str, str]:  # noqa: RET503 - the union is closed
    """Return a verb and what it is done to."""
    match step:
        case lifecycle.LockTree(locked, is_exclusive):
            return (
                "lock",
                f"{locked}, {'for this container alone' if is_exclusive else 'shared with others'}",
            )
        case lifecycle.Enlist(name, is_given):
            return "name", name if is_given else f"{name}, or with a number appended"
        case lifecycle.LimitTime(total_s, idle_s, kill_s):
            return "time", _time_limits(total_s, idle_s, kill_s)
        case lifecycle.LinkJournal(link, journal):
            return "link", f"{link} -> {journal}, which stays"
        case lifecycle.RegisterMachine() as registered:
            return "register", f"with systemd-machined, by {registered.program}"
        case limits.LimitResources(groups):
            return "limits", "; ".join(map(_limits, groups))
        case limits.RootCgroups(owner):
            return "cgroup", f"a namespace that begins at the guest's own group{_owned(owner)}"
        case limits.MountCgroup(target):
            return "cgroup", target
        case steps.EnterNamespaces(namespaces, id_map):
            return "unshare", ", ".join(namespaces) + (f"; {_ids(id_map)}" if id_map else "")
        case steps.ForbidNamespaces(namespace):
            return "forbid", f"further {namespace} namespaces"
        case steps.PrivateMounts():
            return "private", "every mount: nothing below spreads to the host"
        case steps.BecomeInit():
            return "fork", "process 1 of a new PID namespace, which does the rest"
        case steps.ForkGuestInit():
            return "fork", "the command's process, number 1 of a PID namespace within, which waits"
        case steps.OpenImage(image, is_exclusive) as opened:
            if opened.descriptor is not None:
                return "image", f"{image}, unpacked to a file without a name"
            others = "no one else may" if is_exclusive else "others may read it, none write"
            return "image", f"{image}, locked: {others}"
        case steps.AttachLoop(partition, offset, size, read_only):
            marks = _marks(read_only=read_only, recursive=False, id_map=None)
            return "loop", f"{_part(partition)}, {size} bytes from {offset}{marks}"
        case steps.CheckFilesystem(partition, argv) as checked:
            before = f", once {checked.replay} has replayed its journal" if checked.replay else ""
            return "check", f"{_part(partition)} by {' '.join(argv)}{before}"
        case steps.MountFilesystem(volume, _, filesystem, options):
            words = [k if v is None else f"{k}={v}" for k, v in options]
            given = f" ({','.join(words)})" if words else ""
            return "mount", f"{_volume(volume)}, {filesystem}{given}"
        case steps.ServeFilesystem(_, partition, _, argv, read_only):
            marks = _marks(read_only=read_only, recursive=False, id_map=None)
            return "serve", f"{_part(partition)} by {' '.join(argv)}{marks}"
        case steps.MountTree(source, read_only, recursive, id_map, volume):
            marks = _marks(read_only=read_only, recursive=recursive, id_map=id_map)
            return "root", f"{_shown(source, volume)}{marks}"
        case steps.MountOverlay(lower, recursive, id_map) as overlay:
            marks = _marks(read_only=False, recursive=recursive, id_map=id_map)
            tree = f"{_shown(lower, overlay.volume)}{marks}, changes on a tmpfs that vanishes"
            is_root = overlay.target == "/"
            return ("root", tree) if is_root else ("overlay", f"{overlay.target} <- {tree}")
        case steps.Scaffold(directory, missing):
            return "scaffold", f"{directory} with {', '.join(path for path, _ in missing)}"
        case steps.Tmpfs(target, mode, owner, options):
            words = [f"mode={mode:o}", *(k if v is None else f"{k}={v}" for k, v in options)]
            words += ["ro"] if step.read_only else []
            words += ["noexec"] if step.noexec else []
            return "tmpfs", f"{target} ({','.join(words)}){_owned(owner)}"
        case steps.Bind(source, target, read_only, recursive, id_map) as bind:
            marks = _marks(read_only=read_only, recursive=recursive, id_map=id_map)
            marks += " noexec" if bind.noexec else ""
            marks += "" if bind.nosuid else " suid"
            marks += " (made if it is not there)" if bind.make_source else ""
            return "bind", f"{target} <- {_shown(source, bind.volume)}{marks}"
        case steps.ReadOnlyOver(target):
            return "read-only", target
        case steps.Proc(target):
            return "proc", target
        case steps.Sysfs(target, kept):
            rest = f" but for {', '.join(kept)}" if kept else ""
            return "sysfs", f"{target} (read-only){rest}"
        case steps.Mqueue(target):
            return "mqueue", target
        case steps.Devpts(target, gid, owner):
            return "devpts", f"{target}{f' (gid={gid})' if gid is not None else ''}{_owned(owner)}"
        case steps.DeviceNode(target, major, minor, mode):
            return "mknod", f"{target} c {major}:{minor} mode {mode:o}"
        case steps.Directory(target, mode):
            return "mkdir", f"{target} mode {mode:o}"
        case steps.Symlink(target, text):
            return "symlink", f"{target} -> {text}"
        case steps.WriteFile(target, content):
            return "write", f"{target} ({len(content)} characters)"
        case steps.Show(source, target):
            return "bind", f"{target} <- {source} inside (read-only)"
        case steps.Substitute():
            return "native", _substitutes(step)
        case steps.Pivot():
            return "pivot", "to this view, and let go of the host's root"
        case steps.MountBinfmt():
            return "binfmt", "open a private registry; the host's is not seen or changed"
        case steps.Register(arch, interpreter, host_interpreter, line):
            flags = line.rpartition(b":")[2].decode()
            return "register", f"{arch} by {interpreter} ({host_interpreter}), flags {flags}"
        case steps.Hostname(name):
            return "hostname", name
        case steps.LoopbackUp():
            return "network", "lo up, nothing else"
        case layers.OverlayAt(lowers, upper, _, target):
            changes = f", changes to {upper}" if upper is not None else " (read-only)"
            return "overlay", f"{target} <- {', '.join(lowers)}{changes}"
        case layers.MountPersistent(lower, directory, recursive, id_map):
            marks = _marks(read_only=False, recursive=recursive, id_map=id_map)
            return "root", f"{lower}{marks}, changes kept in {directory}"
        case layers.MountVolatile(source, links, id_map):
            marks = _marks(read_only=True, recursive=False, id_map=id_map)
            names = ", ".join(name for name, _ in links)
            return "root", f"an empty tmpfs with {source}/usr{marks}; links {names}"
        case layers.Hide(target, is_directory):
            return "hide", f"{target} by an empty {'directory' if is_directory else 'file'}"
        case networks.AttachUserNetwork(program, forwards):
            ports = "".join(f", {_forward(each)}" for each in forwards)
            return "network", f"by {program}, run outside{ports}"
        case networks.AttachVeth(interface, _, guest_interface, _, bridge):
            end = f"{interface}{'' if bridge is None else f' in {bridge}'}"
            return "network", f"{guest_interface} inside, {end} outside"
        case copies.CopyIn(source, target):
            return "copy in", f"{target} <- {source}"
        case copies.CopyOut(guest_source, host_target):
            return "copy out", f"{host_target} <- {guest_source} inside, once the command has ended"
        case privileges.LimitPrivileges():
            return "privileges", _privileges(step)
        case privileges.FilterCalls(name):
            return "seccomp", _filter(name)
        case steps.Exec():
            return "hold" if step.is_only_held else "exec", _command(step)
        case _:
            assert_never(step)


def _privileges(step: privileges.LimitPrivileges) -> str:
    dropped = f"without {', '.join(step.dropped)}" if step.dropped else "all capabilities"
    gain = "none gained by set-user-ID programs" if step.no_new_privs else "set-user-ID works"
    return f"{gain}; {dropped}"


def _filter(name: privileges.Filter) -> str:
    if name == "no-sync":
        return f"does nothing: {', '.join(privileges.SKIPPED_SYNC)}"
    refused = (*privileges.REFUSED_EPERM, *privileges.REFUSED_ENOSYS)
    return f"refuses {', '.join(refused)}, sockets to the hypervisor"


def _time_limits(total_s: float | None, idle_s: float | None, kill_s: float) -> str:
    words = [] if total_s is None else [f"at most {total_s:g} s"]
    words += [] if idle_s is None else [f"at most {idle_s:g} s without progress"]
    return f"{', '.join(words)}; then SIGTERM, and SIGKILL {kill_s:g} s later"


def _forward(forward: networks.Forward) -> str:
    outside = f"{forward.host_address}:{forward.host_port}/{forward.protocol}"
    return f"{outside} leads to port {forward.guest_port}"


def _limits(group: limits.ControlGroup) -> str:
    words = [f"{name}={value}" for name, value in group.settings]
    words += ["one of the guest's own"] if group.is_delegated else []
    return f"{', '.join(words)} in a control group below {group.parent}"


def _part(partition: int) -> str:
    return f"partition {partition}" if partition else "the whole image"


def _volume(volume: str) -> str:
    number, _, subvolume = volume.partition(":")
    return _part(int(number)) + (f", subvolume {subvolume}" if subvolume else "")


def _shown(source: str, volume: str | None) -> str:
    return source if volume is None else f"{_volume(volume)} of {source}"


def _command(step: steps.Exec) -> str:
    import shlex  # off the start path

    fallback = "" if step.fallback is None else f" or {step.fallback}"
    words = [shlex.join(step.argv), f"in {step.directory}{fallback}", f"as {step.uid}:{step.gid}"]
    if step.personality is not None:
        words.append("in 32-bit mode")
    if step.is_process_one:
        words.append("as process 1")
    if step.init is not None:
        words.append(f"an init ({step.init.kind}), stopped by {_stop(step.init)}")
    if step.terminal:
        words.append("on a terminal of its own")
    if step.piped:
        words.append(f"with {_pipes(step.piped)}")
    environment = " ".join(f"{key}={shlex.quote(value)}" for key, value in step.environment)
    return f"{', '.join(words)}\n{'':>{_VERB_WIDTH + 3}}with {environment}"


def _stop(init: Init) -> str:
    import shlex  # off the start path

    return f"signal {init.stop_signal}" if init.stop_signal else shlex.join(init.stop_command)


def _pipes(piped: tuple[int, ...]) -> str:
    names = " and ".join(name for fd, name in ((1, "output"), (2, "errors")) if fd in piped)
    return f"{names} passed on by xbuild{', and no input' if 0 in piped else ''}"


def _substitutes(step: steps.Substitute) -> str:
    about, wanted = step.about, step.substitutions
    indent = f"\n{'':>{_VERB_WIDTH + 3}}"
    proof = f"proven by corpus {about.corpus}" if about.corpus else "not proven"
    lines = [
        f"{len(wanted)} programs, {about.choice}, of set {about.digest[:12]}"
        f" ({about.provider}; {proof}), told at exec by {step.table}",
        *(f"{kind}: {', '.join(names)}" for kind, names in _by_kind(wanted)),
    ]
    reasons: dict[str, list[str]] = {}
    for path, reason in about.emulated:
        reasons.setdefault(reason, []).append(path.rpartition("/")[2])
    lines += (f"emulated: {', '.join(names)}: {why}" for why, names in reasons.items())
    return indent.join(lines)


def _by_kind(wanted: tuple[Substitution, ...]) -> list[tuple[str, list[str]]]:
    kinds: dict[str, list[str]] = {}
    for each in wanted:
        name = each.path.rpartition("/")[2]
        kinds.setdefault(each.kind, []).append(f"{name} ({each.reason})" if each.reason else name)
    return list(kinds.items())


def _marks(*, read_only: bool, recursive: bool, id_map: IdMap | None) -> str:
    words = []
    if read_only:
        words.append("read-only")
    if recursive:
        words.append("with what is mounted below")
    if id_map is not None:
        words.append(f"idmapped {_ranges(id_map.uids)}")
    return f" ({', '.join(words)})" if words else ""


def _ids(id_map: IdMap) -> str:
    text = f"uids {_ranges(id_map.uids)}"
    if id_map.gids != id_map.uids:
        text += f"; gids {_ranges(id_map.gids)}"
    return f"{text}; map written by {id_map.writer}"


def _ranges(ranges: tuple[IdRange, ...]) -> str:
    return ", ".join(
        f"{span.inside} -> {span.outside}"
        if span.count == 1
        else f"{span.inside}..{span.inside + span.count - 1} -> {span.outside}.."
        for span in ranges
    )


def _owned(owner: Owner) -> str:
    return f" owned by {owner.uid}:{owner.gid}" if owner.uid or owner.gid else ""


def to_json(plan: Plan, settings: tuple[tuple[str, str, str], ...] = ()) -> str:
    """Return the plan as a JSON document of schema ``xbuild.plan/1`` (docs/json.md)."""
    import json  # off the start path

    document = {
        "schema": SCHEMA,
        "target": plan.target,
        "settings": [{"key": k, "value": v, "origin": o} for k, v, o in settings],
        "steps": [{"step": type(step).__name__, **_fields(step)} for step in plan.steps],
        "host_entries": [_fields(each) for each in plan.host_entries],
        "notes": list(plan.notes),
    }
    return json.dumps(document, indent=2)


def _fields(record: Record) -> dict[str, object]:
    return {name: _plain(getattr(record, name)) for name in record.__match_args__}


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return _fields(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    return value
