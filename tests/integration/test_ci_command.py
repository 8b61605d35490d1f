"""``xbuild ci matrix``: what GitHub's fromJSON and GitLab's parser of YAML make of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.runs import Runner

Matrix = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def matrix(root: Runner) -> Matrix:
    def run(*arguments: str, variables: dict[str, str] | None = None, **more: Any) -> Any:
        environment = root.user.environment(**(variables or {}))
        return root.command("ci", "matrix", *arguments, env=environment, **more)

    return run


def test_github(matrix: Matrix) -> None:
    done = matrix("--arch", "arm64", "--arch", "armhf", "--shards", "2", "zlib", "lua", "hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1  # for $GITHUB_OUTPUT
    rows = json.loads(done.stdout)["include"]
    assert [(row["arch"], row["shard"], row["packages"]) for row in rows] == [
        *(("arm64", 1, "zlib hello"), ("arm64", 2, "lua")),
        *(("armhf", 1, "zlib hello"), ("armhf", 2, "lua")),
    ]
    assert all(row["shards"] == 2 and "runner" not in row for row in rows)


def test_gitlab(matrix: Matrix) -> None:
    options = ("--arch", "riscv64", "--runner", "saas-linux-small-amd64", "--shards", "9")
    done = matrix(*options, "-f", "-", input="zlib 5\nlua\n", variables={"GITLAB_CI": "true"})
    assert yaml.safe_load(done.stdout) == {
        ".xbuild-matrix": {
            "parallel": {
                "matrix": [
                    {
                        "ARCH": "riscv64",
                        "SHARD": str(number),
                        "SHARDS": "2",
                        "PACKAGES": name,
                        "RUNNER": "saas-linux-small-amd64",
                    }
                    for number, name in ((1, "zlib"), (2, "lua"))
                ]
            }
        }
    }


def test_doubles_are_told_and_built_once(matrix: Matrix) -> None:
    done = matrix("--arch", "arm64", "--shards", "2", "zlib", "lua", "zlib")
    rows = json.loads(done.stdout)["include"]
    assert [row["packages"] for row in rows] == ["zlib", "lua"]
    assert done.stderr == "note: zlib is there more than once\n"


BAD = {
    "No architecture was named": ("zlib",),
    "There are no packages to share out": ("--arch", "arm64"),
    "Not a package's name": ("--arch", "arm64", "$(reboot)"),
    "there is no --arch armhf": ("--arch", "arm64", "--runner", "armhf=x", "zlib"),
    "Not a runner": ("--arch", "arm64", "--runner", "=", "zlib"),
    "Cannot read /no/such/file": ("--arch", "arm64", "-f", "/no/such/file"),
    "Cannot read /: Is a directory": ("--arch", "arm64", "-f", "/"),
    "300 jobs are more than a matrix may have": (
        *(word for name in ("arm64", "armhf", "riscv64") for word in ("--arch", name)),
        *("--shards", "100", *(f"p{number}" for number in range(100))),
    ),
    "999 is not in the range": ("--arch", "arm64", "--shards", "999", "zlib"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(matrix: Matrix, said: str) -> None:
    done = matrix(*BAD[said])
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_an_unknown_architecture(matrix: Matrix) -> None:
    done = matrix("--arch", "arm65", "zlib")
    assert done.returncode != 0
    assert "arm65" in done.stderr
