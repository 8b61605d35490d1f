"""The modules of ``xbuild run`` read from one file instead of forty: a third of their import time.

The file lies beside the byte code that Python itself caches, is made like it when it is missing
or older than a source, and does nothing where it cannot be written. Only the installed command
uses it (script/xbuild); tests and library users import in the ordinary way.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    # name, path, mtime in ns, size in bytes, whether it is a package, its code
    Entry = tuple[str, str, int, int, bool, CodeType]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_CACHE = os.path.join(_PACKAGE, "__pycache__")


def preload() -> None:
    """Let imports of start modules be served from one file, making it if need be."""
    path = os.path.join(_CACHE, f"start.{sys.implementation.cache_tag}.bundle")
    entries = _read(path)
    if entries is None:
        _write(path)
    else:
        sys.meta_path.insert(0, _Bundle(entries))


def _read(path: str) -> tuple[Entry, ...] | None:
    """Return the entries of a bundle that is as new as every source in it, else None."""
    try:
        with open(path, "rb") as file:
            entries: tuple[Entry, ...] = marshal.loads(file.read())
        for _, source, mtime_ns, size, _, _ in entries:
            status = os.stat(source)
            if (status.st_mtime_ns, status.st_size) != (mtime_ns, size):
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return entries


def _write(path: str) -> None:
    """Make the bundle of what ``xbuild run`` imports; anything in the way is left alone."""
    if not os.access(_CACHE, os.W_OK):
        return
    import xbuild.cli.run  # noqa: F401 - so that its modules are there to be listed

    entries = [_entry(name, module) for name, module in sys.modules.items() if _is_ours(name)]
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(marshal.dumps(tuple(entries)))
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _is_ours(name: str) -> bool:
    return name.startswith("xbuild.") and name != __name__


def _entry(name: str, module: ModuleType) -> Entry:
    spec = module.__spec__
    assert spec is not None
    assert spec.origin is not None
    status = os.stat(spec.origin)
    is_package = spec.submodule_search_locations is not None
    code = spec.loader.get_code(name)  # type: ignore[union-attr]  # a SourceFileLoader
    return (name, spec.origin, status.st_mtime_ns, status.st_size, is_package, code)


class _Bundle:
    """A finder and loader of the modules in a bundle (importlib.abc, without its import)."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._entries = {entry[0]: entry for entry in entries}
        self._new_spec = type(sys.__spec__)  # ModuleSpec

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec with the source as origin, or None for a module that is not here."""
        del path, target
        entry = self._entries.get(name)
        if entry is None:
            return None
        spec = self._new_spec(name, self, origin=entry[1], is_package=entry[4])  # type: ignore[arg-type]  # a loader by its methods
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(entry[1]))
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to the import system."""
        del spec

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self._entries[module.__name__][5], module.__dict__)
