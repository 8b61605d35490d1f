"""The modules of ``xbuild run`` from one file, instead of sixty found and read one by one.

The file, the *bundle*, lies beside the byte code that Python itself caches, is made like it when it
is missing or older than a source (``xbuild.bundle``), and does without where it cannot be written.
Only the installed command (script/xbuild) uses it; tests and library users import in the ordinary
way. This module stands at its head, so that nothing has to be found in order to read the rest: it
imports nothing that is not there already.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import NoReturn

    # name, path in the package, mtime in ns, size in bytes, whether it is a package, its code
    Entry = tuple[str, str, int, int, bool, CodeType]


def load(package: str, entries: "tuple[Entry, ...]") -> None:
    """Make and run the modules, each after those that it imports (importlib is slower).

    ``package`` is the directory that the bundle was found in. Does nothing where a source is not
    what it was when the bundle was made. Raises OSError where one is missing.
    """
    fd = os.open(package, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, path, mtime_ns, size, _, _ in entries:
            status = os.stat(path, dir_fd=fd)
            if (status.st_mtime_ns, status.st_size) != (mtime_ns, size):
                return
    finally:
        os.close(fd)
    modules = sys.modules
    new_module = type(sys)
    for name, path, _, _, is_package, code in entries:
        module = new_module(name)
        module.__file__ = source = f"{package}/{path}"
        if is_package:
            module.__path__ = [os.path.dirname(source)]
        modules[name] = module
        exec(code, module.__dict__)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)


def main() -> "NoReturn":
    """Be the installed command: without the interpreter's finalization, a tenth of a start."""
    if sys.argv[1:2] == ["run"] and "xbuild.cli.run" not in sys.modules:
        _make_bundle()
    from xbuild.cli.main import main

    status = main()  # it has written standard output out, or its status says that it could not
    try:
        sys.stderr.flush()
    finally:  # closed or full, it changes nothing: a run's status is its command's
        os._exit(status)


def _make_bundle() -> None:
    """Make the bundle for the starts to come, where it may be written."""
    cache = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__pycache__")
    if os.access(cache, os.W_OK):
        from xbuild.bundle import write_bundle

        write_bundle(os.path.join(cache, f"start.{sys.implementation.cache_tag}.pyc"))
