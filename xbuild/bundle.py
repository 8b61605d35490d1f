"""Making the file that ``xbuild.preload`` reads: what a start imports, without what it never uses.

Left out are docstrings, annotations of functions and what is for type checkers alone, which
together are a third of the byte code.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    from xbuild.preload import Entry

_WITHOUT_DOCSTRINGS = 2
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def write_bundle(path: str) -> None:
    """Write the bundle of what ``xbuild run`` imports; anything in the way is left alone."""
    import xbuild.cli.main
    import xbuild.cli.run  # both, so that their modules are there to be listed
    import xbuild.preload

    # A module is moved to the end when it is complete: importlib._bootstrap._load_unlocked. The
    # package itself was complete before what it is now asked for.
    entries = [_entry(name, module) for name, module in sys.modules.items() if _is_ours(name)]
    loader = lean_code(_content(_source(xbuild.preload)), _source(xbuild.preload))
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "xb", opener=_open_for_its_owner) as file:
            file.write(marshal.dumps((sys.version, loader, tuple(entries))))
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _open_for_its_owner(path: str, flags: int) -> int:
    """Open what its owner alone may write, whatever the umask: others run what is in it."""
    return os.open(path, flags, 0o644)


def _is_ours(name: str) -> bool:
    return name == "xbuild" or (name.startswith("xbuild.") and name != __name__)


def _entry(name: str, module: ModuleType) -> Entry:
    source = _source(module)
    status = os.stat(source)
    code = lean_code(_content(source), source)
    is_package = hasattr(module, "__path__")
    path = os.path.relpath(source, _PACKAGE)
    return (name, path, status.st_mtime_ns, status.st_size, is_package, code)


def _source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return module.__file__


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def lean_code(text: bytes, source: str) -> CodeType:
    """Compile a module without docstrings, asserts, annotations of functions and type imports."""
    tree = _Leaner().visit(ast.parse(text, source))
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.stmt):
            # Lines are enough to find a fault by: columns are a sixth of the byte code.
            node.end_lineno, node.col_offset, node.end_col_offset = node.lineno, -1, -1
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(
        ast.fix_missing_locations(tree),
        source,
        "exec",
        flags=flags,
        dont_inherit=True,
        optimize=_WITHOUT_DOCSTRINGS,
    )
    return code


class _Leaner(ast.NodeTransformer):
    """Takes out what nothing looks at when a program runs."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            each.annotation = None
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                rest.annotation = None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node
