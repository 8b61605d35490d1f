"""Why a run did not start, in words: a report from a child becomes an error with a next step.

Off the start path: loaded only when something failed.
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.binary.arch import arch_of
from xbuild.binary.elf import ELFMAG, SNIFF_BYTES, read_program, sniff
from xbuild.errors import (
    CommandNotExecutable,
    CommandNotFound,
    DamagedElf,
    SetupFailed,
    SymlinkLoop,
    TargetError,
    XbuildError,
)
from xbuild.plan import layers, privileges, steps
from xbuild.plan.copies import CopyIn
from xbuild.plan.explain import describe
from xbuild.plan.restrictions import why_no_private_binfmt, why_no_user_namespace
from xbuild.record import GuestPath, HostPath
from xbuild.tree.looks import LOOKS_BYTES, looks_like
from xbuild.tree.resolve import DirectoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.elf import Program
    from xbuild.plan.steps import Plan, Step
    from xbuild.sandbox.channel import Report

_ON_IMAGE = (
    steps.OpenImage
    | steps.AttachLoop
    | steps.CheckFilesystem
    | steps.MountFilesystem
    | steps.ServeFilesystem
)
_NO_WORD = "''"
_ONLY_OF_TREE = " in the tree: only those are registered, so copy it there"
_REFUSED = (errno.EPERM, errno.EACCES)
_LIMITS = "ulimit -a shows them: -n, -u, -f"
_USED_UP = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG)


def explain_report(report: Report, plan: Plan) -> XbuildError:
    """Return the error that tells a person about ``report``."""
    step = plan.steps[report.index]
    if report.phase in ("exec", "loader"):
        return _command_failure(report, plan)
    if report.phase in ("flush", "serve") or isinstance(step, _ON_IMAGE):
        from xbuild.sandbox.disk_failure import explain_image_report

        return explain_image_report(report, plan)
    verb, rest = describe(step)
    what = f"{verb} {rest}".splitlines()[0]
    if step_is_chdir(step, report):
        return SetupFailed(
            f"Cannot start in {report.subject}: {os.strerror(report.errno)} inside the tree",
            "name a directory of the tree with --chdir",
        )
    reason, hint = _reason(step, report)
    return SetupFailed(f"Cannot set up the container at «{what}»: {reason}", hint)


def step_is_chdir(step: Step, report: Report) -> bool:
    """Tell whether the command's directory was at fault."""
    return isinstance(step, steps.Exec) and report.subject == step.directory


def _reason(step: Step, report: Report) -> tuple[str, str]:
    code = errno.errorcode.get(report.errno, str(report.errno))
    plain = f"{os.strerror(report.errno)} ({code})"
    if report.subject:
        plain += f" at {report.subject}"
    if report.errno == errno.EACCES and report.subject == _source_of(step):
        return (
            f"{plain}: the container's root may not enter a directory on the way",
            "let others enter those above it (chmod o+x), or name a copy elsewhere",
        )
    if isinstance(step, layers.OverlayAt | layers.MountPersistent):
        known = _layer_reason(report)
        if known is not None:
            return known
    if report.errno in _USED_UP:
        return f"{plain}: a limit of this session is reached", _LIMITS
    if isinstance(step, privileges.FilterCalls):
        return (
            f"{plain}: this kernel, or a container that xbuild runs in, allows no seccomp filter",
            "--seccomp off does without one, see docs/security.md",
        )
    namespace = isinstance(step, steps.EnterNamespaces | steps.BecomeInit)
    if namespace or (report.errno in _REFUSED and not isinstance(step, steps.Exec)):
        if isinstance(step, steps.MountBinfmt | steps.Register):
            found = why_no_private_binfmt(report.errno)
        else:
            found = why_no_user_namespace(report.errno)
        return f"{plain}: {found.cause}", found.hint
    if isinstance(step, steps.MountBinfmt | steps.Register):
        found = why_no_private_binfmt(report.errno)
        return f"{plain}: {found.cause}", found.hint
    if report.errno == errno.EINVAL and report.subject.endswith("(idmapped)"):
        return (
            f"{plain}: a file system there has no idmapped mounts, or is idmapped already",
            "--private-users identity does without them",
        )
    if isinstance(step, steps.Scaffold) and report.errno == errno.E2BIG:
        return (
            "it has too many entries, each of which would take a mount",
            "make the mount point in the tree, or add --ephemeral",
        )
    if isinstance(step, steps.Substitute) and report.errno == errno.ESTALE:
        return (
            "none of these programs is in the view as it was in the tree when this was planned",
            "run it again; a --bind or --tmpfs may cover them",
        )
    if isinstance(step, CopyIn) and report.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no {step.source} on the host", "name a file or directory that is there"
    if isinstance(step, steps.Tmpfs) and report.errno == errno.EINVAL:
        return f"{plain}: an option that this kernel's tmpfs does not take", "tmpfs(5) has them"
    place = report.subject
    if isinstance(step, steps.Bind | steps.Tmpfs) and place and step.target.endswith(place):
        return f"{plain}: nothing is there to mount on, nor can it be made", "name another place"
    if report.errno == errno.ELOOP:
        return f"{plain}: a symbolic link stands where a mount point was planned", "run it again"
    if report.errno == errno.ENOSPC:
        return f"{plain}: a limit on mounts or space is reached", "see sysctl fs.mount-max, df"
    return plain, "xbuild doctor shows what this host allows; --dry-run prints the whole plan"


def _layer_reason(report: Report) -> tuple[str, str] | None:
    match report.errno:
        case errno.EAGAIN:
            return (
                f"another container writes to {report.subject}",
                "wait for it to end; xbuild ps lists those that run",
            )
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no directory {report.subject}", "make it first"
        case errno.EINVAL | errno.EROFS if report.subject.startswith("overlay"):
            return (
                "overlayfs refuses these directories: one is inside another, an overlay itself, or"
                " on a file system that cannot take changes",
                "name directories apart from each other, on an ordinary file system; see dmesg",
            )
        case _:
            return None


def _source_of(step: Step) -> str | None:
    match step:
        case steps.MountTree(source) | steps.MountOverlay(source) | steps.Bind(source):
            return source
        case _:
            return None


def _command_failure(report: Report, plan: Plan) -> XbuildError:
    name = plan.command.argv[0]
    if report.phase == "exec" and report.errno in (errno.ENOENT, errno.ENOTDIR):
        if _is_there(plan, report):
            return CommandNotFound(
                f"{report.subject} is a symbolic link to nothing in {plan.target}",
                "readlink shows what is missing",
            )
        path = dict(plan.command.environment).get("PATH", "")
        looked = "" if "/" in name else f" on the container's PATH ({path})"
        return CommandNotFound(
            f"There is no {name or _NO_WORD} in {plan.target}{looked}",
            "the tree's programs are all there is",
        )
    if report.errno == errno.E2BIG:
        return CommandNotExecutable(
            f"Cannot execute {name}: the arguments and the environment are too long together",
            "fewer arguments at once, as by xargs(1); the kernel has room for 2 MiB: execve(2)",
        )
    if report.errno in _USED_UP:
        why = f"{os.strerror(report.errno)}: a limit of this session is reached"
        return CommandNotExecutable(f"Cannot execute {name}: {why}", _LIMITS)
    description, hint = _examine(plan, report)
    return CommandNotExecutable(f"Cannot execute {report.subject or name}: {description}", hint)


def _path_of(plan: Plan, report: Report) -> GuestPath:
    return GuestPath(os.path.join("/", plan.command.directory, report.subject))


def _is_there(plan: Plan, report: Report) -> bool:
    """Tell whether the tree has a name, be it only that of a dangling symbolic link."""
    directory, _, name = _path_of(plan, report).rpartition("/")
    try:
        with DirectoryReader(plan.target) as reader:
            return bool(reader.present(GuestPath(directory or "/"), (name,)))
    except TargetError:
        return False


def _examine(plan: Plan, report: Report) -> tuple[str, str]:
    """Look at the file itself, in the tree, to say why the kernel would not run it."""
    root, path = _origin_of(plan, _path_of(plan, report))
    try:
        with DirectoryReader(root) as reader:
            entry = reader.lookup(path)
            if entry is not None and not stat.S_ISREG(entry.mode):
                return f"it is {_kind(entry.mode)}, not a program", "name a program of the tree"
            header = reader.read(path, LOOKS_BYTES)
            is_elf = header.startswith(ELFMAG)
            program, damage = _read(reader, path) if is_elf else (None, "")
    except SymlinkLoop:
        return "it is a loop of symbolic links", SymlinkLoop.usual_hint
    except TargetError:  # on a tmpfs, in an image
        return _unseen(report)
    ident = sniff(header[:SNIFF_BYTES])
    arch = arch_of(ident) if ident is not None else None
    if report.phase == "loader":
        if header.startswith(b"#!"):
            shebang = header.split(b"\n")[0].decode("utf-8", "replace")
            return (
                f"the interpreter of its first line is not in the tree: {shebang}",
                "install that in the tree, or name it before the script",
            )
        kind = "" if arch is None else f"{arch.common_name} "
        loader = "" if program is None else f"{program.interpreter}, "
        return (
            f"{loader}the dynamic loader of this {kind}program, is not in the tree",
            "build it for the tree, or install the C library that it is of",
        )
    if report.errno == errno.EACCES and os.statvfs(root).f_flag & os.ST_NOEXEC:
        return "permission denied", f"the file system of {root} is mounted noexec"
    if report.errno == errno.EACCES:
        return "permission denied", "is its executable bit set, and may this user reach it?"
    if damage:
        return damage, "copy it into the tree again, or reinstall its package"
    if arch is not None:
        registered = {s.arch for s in plan.steps if isinstance(s, steps.Register)}
        registered |= {entry.arch for entry in plan.host_entries}
        if arch.name not in registered:
            return (
                f"it is a program for {arch.common_name}, which neither this host nor an"
                " interpreter of this container runs",
                f"xbuild setup {arch.common_name}; xbuild inspect shows the architectures met"
                + (_ONLY_OF_TREE if root != plan.target else ""),
            )
        return (
            f"the kernel refused this {arch.common_name} program: it may be damaged",
            "copy it into the tree again, or reinstall its package",
        )
    if header.startswith(b"#!"):
        return os.strerror(report.errno), "its first line names an interpreter that cannot run"
    what, remedy = looks_like(header)
    if what in ("a text file", "data of an unknown format"):
        what, remedy = "neither a program nor a script with a #! line", "name its interpreter first"
    return f"it is {what}", remedy


def _origin_of(plan: Plan, path: GuestPath) -> tuple[HostPath, GuestPath]:
    """Return what shows ``path``, the tree or a directory that is bound, and the path in it."""
    root, below = plan.target, path
    for step in plan.steps:
        if isinstance(step, steps.Bind) and f"{path}/".startswith(f"{step.target}/"):
            whole = f"{step.source}{path[len(step.target) :]}"
            root = HostPath(step.source if path != step.target else os.path.dirname(whole))
            below = GuestPath(whole[len(root) :])
    return root, below


def _unseen(report: Report) -> tuple[str, str]:
    """Say what may be wrong with a program that only the container sees."""
    if report.phase == "loader":
        return (
            "the dynamic loader that it names, or the interpreter of its first line, is not in the"
            " tree",
            "xbuild inspect of the file shows which",
        )
    return os.strerror(report.errno), "ls -l inside shows it as it is there"


def _read(reader: DirectoryReader, path: GuestPath) -> tuple[Program | None, str]:
    """Return a program, and in which way it is cut off or makes no sense; "" where it is whole."""
    with reader.open(path) as file:
        try:
            program = read_program(file)
        except DamagedElf as error:
            return None, error.message
        size, end = file.seek(0, os.SEEK_END), program.end_bytes
    return program, f"it is cut off: it has {size} of at least {end} bytes" if end > size else ""


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in kinds if test(mode)), "no regular file")
