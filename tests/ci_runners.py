"""What GitHub's and GitLab's runners do with a step's or a job's scripts, as they document it.

GitHub: "Metadata syntax for GitHub Actions" (composite actions), "Workflow commands", "Workflow
syntax" (shell). GitLab: "CI/CD YAML syntax reference": before_script and script are one script of
one shell, which ends at the first command that fails.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import yaml

from tests.patience import WORK_S
from tests.users import User
from xbuild.record import Record

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_COMMAND = re.compile(r"::([\w-]+)(?: [^:]*)?::(.*)|.*##\[([\w-]+)[^\]]*\](.*)")
_CONDITION = re.compile(r"(inputs\.[\w-]+) != ''")
Document = dict[str, Any]  # Any: what YAML holds


class Done(Record):
    """What came of it; ``outputs`` are the action's, ``summary`` the page about the step."""

    returncode: int
    stdout: str
    stderr: str
    outputs: dict[str, str]
    summary: str


def read_yaml(path: str) -> Document:
    """Parse a file of one document."""
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    assert isinstance(document, dict)
    return document


class GitHubRunner:
    """A runner for composite actions: ``place`` is a new directory of the user's."""

    def __init__(self, user: User, place: str, **environment: str) -> None:
        self._user = user
        self._files = {
            name: f"{place}/{name.lower()}"
            for name in ("GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")
        }
        self._place = place
        self.workspace = f"{place}/workspace"
        for directory in (self.workspace, f"{place}/temp"):
            os.mkdir(directory)
            os.chown(directory, user.uid, user.gid)
        self._environment = user.environment(
            CI="true",
            GITHUB_ACTIONS="true",
            GITHUB_WORKSPACE=self.workspace,
            RUNNER_TEMP=f"{place}/temp",
            RUNNER_OS="Linux",
            **environment,
        )

    def run(self, action: str, **inputs: str) -> Done:
        """Run the action of a checkout, with inputs as ``with:`` has them."""
        document = read_yaml(f"{action}/action.yml")
        assert document["runs"]["using"] == "composite"
        assert set(inputs) <= set(document["inputs"])
        values = {f"inputs.{n}": str(i.get("default", "")) for n, i in document["inputs"].items()}
        values |= {f"inputs.{name}": value for name, value in inputs.items()}
        values["github.workspace"] = self.workspace
        status, said = 0, ["", ""]
        for step in document["runs"]["steps"]:
            if status or not _holds(step.get("if", ""), values):
                continue
            done, outputs = self._step(step, action, values)
            status, said = done.returncode, [said[0] + done.stdout, said[1] + done.stderr]
            key = f"steps.{step.get('id', '')}.outputs"
            values |= {f"{key}.{name}": value for name, value in outputs.items()}
        outputs = {n: _filled(o["value"], values) for n, o in document.get("outputs", {}).items()}
        return Done(status, said[0], said[1], outputs, self._read("GITHUB_STEP_SUMMARY"))

    def _step(
        self, step: Document, action: str, values: dict[str, str]
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
        for name in ("GITHUB_OUTPUT", "GITHUB_PATH"):
            self._write(name, "")
        if not os.path.exists(self._files["GITHUB_STEP_SUMMARY"]):
            self._write("GITHUB_STEP_SUMMARY", "")
        script = f"{self._place}/step.sh"
        with open(script, "w", encoding="utf-8") as file:
            file.write(_filled(step["run"], values))
        assert step["shell"] == "bash"
        given = {name: _filled(text, values) for name, text in step.get("env", {}).items()}
        done = self._user.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            env={**self._environment, **self._files, "GITHUB_ACTION_PATH": action, **given},
            cwd=self.workspace,
            timeout_s=WORK_S,
        )
        for line in self._read("GITHUB_PATH").splitlines():
            self._environment["PATH"] = f"{line}:{self._environment['PATH']}"
        pairs = (line.split("=", 1) for line in self._read("GITHUB_OUTPUT").splitlines())
        return done, dict(pairs)

    def _write(self, name: str, text: str) -> None:
        with open(self._files[name], "w", encoding="utf-8") as file:
            file.write(text)
        os.chown(self._files[name], self._user.uid, self._user.gid)

    def _read(self, name: str) -> str:
        with open(self._files[name], encoding="utf-8") as file:
            return file.read()


def obeyed_commands(log: str) -> list[tuple[str, str]]:
    """Return the workflow commands of a step's log that are obeyed, each with its message."""
    found, token = [], None
    for line in log.splitlines():
        match = _COMMAND.fullmatch(line.strip())
        if match is None:
            continue
        name, message = match[1] or match[3], match[2] or match[4] or ""
        if token is not None:
            token = None if name == token else token
        elif name == "stop-commands":
            token = message
        else:
            found.append((name, message))
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    return _EXPRESSION.sub(lambda match: values.get(match[1], ""), text)


def _holds(condition: str, values: dict[str, str]) -> bool:
    if not condition:
        return True
    match = _CONDITION.fullmatch(condition)
    assert match is not None, condition
    return values.get(match[1], "") != ""


def run_gitlab_job(
    user: User, template: str, job: str, project: str, variables: dict[str, str], **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a job that extends one of a template's and says its ``variables``."""
    document = read_yaml(template)[job]
    environment = user.environment(CI="true", GITLAB_CI="true", CI_PROJECT_DIR=project, **more)
    for name, value in (document["variables"] | variables).items():
        environment[name] = str(value).replace("$CI_PROJECT_DIR", project)
    lines = [*document["before_script"], *document["script"]]
    script = "set -eo pipefail\n" + "".join(f"{line}\n" for line in lines)
    return user.run(["bash", "-c", script], env=environment, cwd=project, timeout_s=WORK_S)
