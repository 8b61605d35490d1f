"""Sets of native tools on disk: where they are, and what each one's manifest says.

A set is ``$XDG_CACHE_HOME/xbuild/native/sets/DIGEST`` with ``manifest.json`` and ``root``, a
directory that is self-contained once it is shown at ``INSIDE``. It appears by one rename and is
never changed, but for verdicts. Making sets, and proving them, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os

from xbuild.emulation.facts import cache_place
from xbuild.errors import ToolsetDamaged
from xbuild.record import GuestPath, HostPath, Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Kind = Literal[
        "compiler",  # the compiler proper: cc1, cc1plus, f951, lto1, clang, rustc, go
        "driver",  # gcc, g++, cpp: they only start others
        "assembler",
        "linker",  # and what the driver starts in its place: collect2, lto-wrapper
        "binutils",
        "shell",
        "make",
        "coreutils",
        "text",  # sed, grep, awk
        "archiver",  # tar and the compressors
        "cache",  # ccache
        "distribution",  # distcc
        "other",
    ]
    Level = Literal["exact", "fast", "none"]
    Verdict = Literal["identical", "differs", "untested"]

FORMAT = 2
INSIDE = GuestPath("/run/xbuild/native")
MANIFEST = "manifest.json"
ROOT = "root"
KINDS = (
    *("compiler", "driver", "assembler", "linker", "binutils", "shell", "make", "coreutils"),
    *("text", "archiver", "cache", "distribution", "other"),
)
LEVELS = ("exact", "fast", "none")
VERDICTS = ("identical", "differs", "untested")
ARGUMENTS_LIMIT = 2  # more do not fit before a command line that is changed in place
PATH_LIMIT = 200  # bytes of a native program's path inside: the dispatcher's buffer
SIZE_LIMIT = 64 << 20  # bytes of a manifest
_NO_TEXTS = ("arguments", "emulate_for", "needs", "drops_preload")
_BEYOND_DIGEST = ("level", "verdict", "reason")


class Tool(Record):
    """A program of the tree, and the native one that can stand in for it.

    ``path`` is free of symbolic links and ``sha256`` that file's content in the tree; ``native``
    is a path in the set's root, ``""`` where there is none. ``arguments`` are inserted after
    argv[0]. With one of ``emulate_for`` on its command line the program is emulated after all:
    they are beginnings of arguments, or with a ``*`` first patterns of whole ones (glob(7), without
    escapes): ``*=native``, ``*%*[efg]*``. So is one that is
    started with LD_PRELOAD set, unless ``drops_preload``: then it runs natively without.
    ``level`` is the least cautious one that uses it; ``reason`` says why not exact. ``needs``
    are paths of the set's companions, without which the verdict would not hold.
    """

    path: GuestPath
    sha256: str
    kind: Kind
    native: str = ""
    arguments: tuple[str, ...] = ()
    emulate_for: tuple[str, ...] = ()
    drops_preload: bool = False
    needs: tuple[str, ...] = ()
    level: Level = "none"
    verdict: Verdict = "untested"
    reason: str = ""


class Compiler(Record):
    """A compiler of the tree that a set was made for, as it describes itself (``gcc -v``).

    ``revision`` is the tree's package revision or version text, ``provider`` that of its native
    counterpart; ``configuration`` is what both were configured with, as far as it matters.
    """

    path: GuestPath
    revision: str
    provider: str
    configuration: str = ""


class File(Record):
    """A file below the set's root: its content's digest, or where a symbolic link leads."""

    path: str
    sha256: str = ""
    link: str = ""


class Companion(Record):
    """A file of the tree that its programs load: libbfd is most of the assembler."""

    path: GuestPath
    sha256: str


class Toolset(Record):
    """A set of native tools.

    ``architecture`` is the tree's and ``machine`` the host's, by the names of ``binary.arch``.
    ``provider`` says in words where the programs come from. ``corpus`` names the proof that gave
    the verdicts, ``""`` before one was made. ``directory`` is where it was read from.
    """

    architecture: str
    machine: str
    provider: str
    compilers: tuple[Compiler, ...]
    tools: tuple[Tool, ...]
    files: tuple[File, ...]
    companions: tuple[Companion, ...] = ()
    corpus: str = ""
    digest: str = ""
    directory: HostPath = HostPath("")

    @property
    def root(self) -> HostPath:
        """What is shown at INSIDE."""
        return HostPath(f"{self.directory}/{ROOT}")


def native_directory() -> HostPath | None:
    """Return the cache of native tools; None without a home."""
    return cache_place("native")


def sets_directory() -> HostPath | None:
    """Return the directory of all sets; it need not exist."""
    native = native_directory()
    return None if native is None else HostPath(f"{native}/sets")


def compute_digest(toolset: Toolset) -> str:
    """Return the name of a set: a digest of all that its manifest says, but for verdicts."""
    document = _to_document(toolset)
    del document["corpus"], document["digest"]
    for tool in document["tools"]:
        for field in _BEYOND_DIGEST:
            tool.pop(field, None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def write_manifest(toolset: Toolset, directory: HostPath) -> Toolset:
    """Write the manifest of a set into ``directory``; return the set with digest and directory.

    An existing manifest is replaced at once, never seen half written. Raises OSError.
    """
    digest = compute_digest(toolset)
    written = replace(toolset, digest=digest, directory=directory)
    text = json.dumps(_to_document(written), indent=1)
    temporary = f"{directory}/.{MANIFEST}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask is: it says what may be run
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, f"{directory}/{MANIFEST}")
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return written


def read_toolset(directory: HostPath) -> Toolset:
    """Read the manifest of a set; its files are not looked at.

    Raises ToolsetDamaged when it is missing, not as written, or not of the name that it has.
    """
    path = f"{directory}/{MANIFEST}"
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise _damaged(directory, f"{MANIFEST} cannot be read: {error.strerror}") from error
    if len(content) > SIZE_LIMIT:
        raise _damaged(directory, f"{MANIFEST} is too large")
    try:
        document = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise _damaged(directory, f"{MANIFEST} is no JSON: {error}") from error
    try:
        toolset = _from_document(document, directory)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(directory, f"{MANIFEST} is not of format {FORMAT}: {error}") from error
    if compute_digest(toolset) != toolset.digest:
        raise _damaged(directory, f"{MANIFEST} was changed: its digest is another")
    return toolset


def _damaged(directory: HostPath, why: str) -> ToolsetDamaged:
    return ToolsetDamaged(
        f"The set of native tools {os.path.basename(directory)[:12]} is damaged: {why}",
        f"rm -r {directory}, then xbuild native prepare TARGET makes it anew",
    )


def _to_document(toolset: Toolset) -> dict[str, Any]:  # Any: as JSON has it
    return {
        "format": FORMAT,
        "digest": toolset.digest,
        "architecture": toolset.architecture,
        "machine": toolset.machine,
        "provider": toolset.provider,
        "corpus": toolset.corpus,
        "compilers": [_plain(compiler) for compiler in toolset.compilers],
        "tools": [_plain(tool) for tool in sorted(toolset.tools, key=lambda t: t.path)],
        "companions": [_plain(each) for each in sorted(toolset.companions, key=lambda c: c.path)],
        "files": [_plain(file) for file in sorted(toolset.files, key=lambda f: f.path)],
    }


def _plain(record: Record) -> dict[str, Any]:  # Any: as JSON has it
    """Return the fields of a record that differ from their defaults."""
    fields = {name: getattr(record, name) for name in record.__match_args__}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if name not in record._defaults or record._defaults[name] != value
    }


def _from_document(document: Any, directory: HostPath) -> Toolset:  # Any: as JSON has it
    if document["format"] != FORMAT:
        raise ValueError(f"it is of format {document['format']!r}")
    return Toolset(
        architecture=_text(document["architecture"]),
        machine=_text(document["machine"]),
        provider=_text(document["provider"]),
        compilers=tuple(Compiler(**_texts(each)) for each in document["compilers"]),
        tools=tuple(_tool(each) for each in document["tools"]),
        companions=tuple(Companion(**_texts(each)) for each in document["companions"]),
        files=tuple(_file(each) for each in document["files"]),
        corpus=_text(document["corpus"]),
        digest=_text(document["digest"]),
        directory=directory,
    )


def _tool(fields: dict[str, Any]) -> Tool:  # Any: as JSON has it
    texts = {k: v for k, v in fields.items() if k not in _NO_TEXTS}
    tool = Tool(
        **_texts(texts),
        arguments=tuple(_text(each) for each in fields.get("arguments", ())),
        emulate_for=tuple(_text(each) for each in fields.get("emulate_for", ())),
        needs=tuple(_text(each) for each in fields.get("needs", ())),
        drops_preload=fields.get("drops_preload", False) is True,
    )
    if tool.kind not in KINDS or tool.level not in LEVELS or tool.verdict not in VERDICTS:
        raise ValueError(f"{tool.path}: {tool.kind}, {tool.level}, {tool.verdict}")
    if not tool.path.startswith("/"):
        raise ValueError(f"not an absolute path: {tool.path!r}")
    if tool.native:
        _check_inside(tool.native)
    elif tool.level != "none":
        raise ValueError(f"{tool.path} has no native program")
    if len(tool.arguments) > ARGUMENTS_LIMIT or any("\0" in each for each in tool.arguments):
        raise ValueError(f"{tool.path} has arguments that do not fit: {tool.arguments}")
    if any(each in ("", "*") or "\0" in each for each in tool.emulate_for):
        raise ValueError(f"{tool.path} is emulated for what means nothing: {tool.emulate_for}")
    return tool


def _file(fields: dict[str, Any]) -> File:  # Any: as JSON has it
    file = File(**_texts(fields))
    _check_inside(file.path)
    if bool(file.sha256) == bool(file.link):
        raise ValueError(f"{file.path} is neither a file nor a link")
    return file


def _check_inside(path: str) -> None:
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in path:
        raise ValueError(f"not a path inside the set: {path!r}")
    if len(os.fsencode(f"{INSIDE}/{path}")) >= PATH_LIMIT:
        raise ValueError(f"too long a path: {path!r}")


def _texts(fields: dict[str, Any]) -> dict[str, Any]:  # Any: as JSON has it
    return {name: _text(value) for name, value in fields.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value
