"""What ``xbuild run`` imports before it does anything: little, for its start is its speed.

Measured: each of these modules costs 3 to 32 ms of a start that takes some 35 (bench/).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.installation import CHECKOUT

FORBIDDEN = frozenset(
    (
        *("dataclasses", "enum", "typing", "pathlib", "re", "json", "subprocess", "tomllib"),
        *("tarfile", "shutil", "tempfile", "contextlib", "functools", "collections", "logging"),
        *("click", "rich", "elftools"),
    )
)
START_PATH = (
    *("xbuild.cli.run", "xbuild.cli.main", "xbuild.sandbox.container", "xbuild.plan.make"),
    *("xbuild.tree.survey", "xbuild.emulation.interpreters", "xbuild.binary.arch"),
)


@pytest.mark.parametrize("module", START_PATH)
def test_start_path_imports_nothing_slow(module: str) -> None:
    script = f"import sys; sys.path.insert(0, {CHECKOUT!r}); import {module}; print(*sys.modules)"
    loaded = _run(script)
    assert f"{module}" in loaded
    assert sorted(loaded & FORBIDDEN) == []


def test_interpreter_alone_imports_none_of_them() -> None:
    assert sorted(_run("import sys; print(*sys.modules)") & FORBIDDEN) == []


def _run(script: str) -> frozenset[str]:
    answer = subprocess.run(
        [sys.executable, "-ISE", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=os.sep,
    )
    return frozenset(answer.stdout.split())


def test_native_tools_are_loaded_where_they_are_asked_for_alone() -> None:
    imports = "".join(f"import {module}; " for module in START_PATH)
    loaded = _run(f"import sys; sys.path.insert(0, {CHECKOUT!r}); {imports}print(*sys.modules)")
    assert not [name for name in loaded if name.startswith(("xbuild.toolset", "xbuild.native"))]
    assert not loaded & {"xbuild.plan.native", "xbuild.sandbox.substitute", "hashlib"}


def test_errors_of_other_commands_are_made_when_they_are_asked_for() -> None:
    imports = "".join(f"import {module}; " for module in START_PATH)
    path = f"import sys; sys.path.insert(0, {CHECKOUT!r}); {imports}"
    assert "xbuild.rare_errors" not in _run(f"{path}print(*sys.modules)")
    asked = "from xbuild.errors import ImageBusy as B, XbuildError as X; print(issubclass(B, X))"
    assert _run(path + asked) == {"True"}
    unknown = "import xbuild.errors; print(hasattr(xbuild.errors, 'NoSuchError'))"
    assert _run(path + unknown) == {"False"}
