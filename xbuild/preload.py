"""The modules of ``xbuild run`` from one file, instead of forty found and read one by one.

The file lies beside the byte code that Python itself caches, is made like it when it is missing
or older than a source (``xbuild.bundle``), and does nothing where it cannot be written. Only the
installed command uses it (script/xbuild); tests and library users import in the ordinary way.

Read at every start before anything else: this module imports nothing that is not there already.
"""

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    # name, path, mtime in ns, size in bytes, whether it is a package, its code
    Entry = tuple[str, str, int, int, bool, CodeType]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_CACHE = os.path.join(_PACKAGE, "__pycache__")


def preload() -> None:
    """Load the modules of a start from one file, making it if need be."""
    path = os.path.join(_CACHE, f"start.{sys.implementation.cache_tag}.bundle")
    entries = _read(path)
    if entries is not None:
        _load(entries)
    elif os.access(_CACHE, os.W_OK):
        from xbuild.bundle import write_bundle

        write_bundle(path)


def _read(path: str) -> "tuple[Entry, ...] | None":
    """Return the entries of a bundle that is this Python's and as new as its sources, else None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content: tuple[str, tuple[Entry, ...]] = marshal.loads(
                os.read(fd, os.fstat(fd).st_size)
            )
        finally:
            os.close(fd)
        made_by, entries = content
        if made_by != sys.version:
            return None
        for _, source, mtime_ns, size, _, _ in entries:
            status = os.stat(source)
            if (status.st_mtime_ns, status.st_size) != (mtime_ns, size):
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return entries


def _load(entries: "tuple[Entry, ...]") -> None:
    """Make and run the modules, each after those that it imports (importlib is slower)."""
    modules = sys.modules
    new_module = type(sys)
    for name, source, _, _, is_package, code in entries:
        module = new_module(name)
        module.__file__ = source
        if is_package:
            module.__path__ = [os.path.dirname(source)]
        modules[name] = module
        exec(code, module.__dict__)
        parent, _, last = name.rpartition(".")
        setattr(modules[parent], last, module)
