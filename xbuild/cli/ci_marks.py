"""What a CI service reads in a job's log: groups and annotations of GitHub, sections of GitLab.

Pure: the texts alone. See docs.github.com, "Workflow commands for GitHub Actions", and
docs.gitlab.com, "Job logs". What a command wrote, and what it is called, is untrusted text.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from xbuild.cli.output import visible
from xbuild.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from xbuild.sandbox.deadline import Process
    from xbuild.sandbox.usage import Usage

    Service = Literal["github", "gitlab", "plain"]

_ANNOTATED_LINES, _SUMMARISED_LINES = 12, 40
_LINE_LIMIT = 500  # characters of one line of output that are shown again
_SECTION = "xbuild_run"
_SUM = "✓ ✗"  # what a person sees first in a summary


class Outcome(Record):
    """What became of a run: ``cause`` and ``hint`` where xbuild itself failed or ended it.

    ``remarks`` are what a person should know besides, such as an explanation.
    """

    words: str
    target: str
    status: int
    wall_s: float
    usage: Usage | None
    last: bytes
    cause: str = ""
    hint: str = ""
    processes: tuple[Process, ...] = ()
    remarks: tuple[str, ...] = ()


def service_of(choice: str, environment: Mapping[str, str]) -> Service:
    """Return which service's words to use; ``auto`` by the variables that its runner sets."""
    if choice == "github" or (choice == "auto" and environment.get("GITHUB_ACTIONS") == "true"):
        return "github"
    if choice == "gitlab" or (choice == "auto" and environment.get("GITLAB_CI") == "true"):
        return "gitlab"
    return "plain"


def opening(service: Service, title: str, now: int, token: str) -> str:
    """Return what is written before a run's output.

    GitHub obeys no command between the two lines with ``token``, which the output must not know.
    GitLab's section ends where one of its name does.
    """
    match service:
        case "github":
            return f"::group::{_github_text(visible(title))}\n::stop-commands::{token}\n"
        case "gitlab":
            return f"\033[0Ksection_start:{now}:{_SECTION}_{token}\r\033[0K{visible(title)}\n"
        case _:
            return ""


def closing(service: Service, now: int, last: bytes, token: str) -> str:
    """Return what is written after it; ``last`` is how it ended, ``token`` that of the opening."""
    line = "\n" if last and not last.endswith(b"\n") else ""
    match service:
        case "github":
            return f"{line}::{token}::\n::endgroup::\n"
        case "gitlab":
            return f"{line}\033[0Ksection_end:{now}:{_SECTION}_{token}\r\033[0K\n"
        case _:
            return ""


def inert(text: str) -> str:
    """Return ``text`` as GitHub only shows it: it obeys ``##[command]`` anywhere in a line."""
    return text.replace("##[", "## [")


def annotation(outcome: Outcome) -> str:
    """Return GitHub's command that puts a failure on the page of the run."""
    lines = [f"{outcome.words}: {_verdict(outcome)}"]
    lines += [f"hint: {line}" for line in outcome.hint.splitlines()]
    lines += [visible(line) for text in outcome.remarks for line in text.splitlines()]
    lines += [f"there was: {_process(each)}" for each in outcome.processes]
    lines += _last_lines(outcome.last, _ANNOTATED_LINES)
    title = _github_property(f"xbuild: {_verdict(outcome)}")
    return f"::error title={title}::{_github_text(chr(10).join(lines))}\n"


def summary(outcome: Outcome) -> str:
    """Return what is appended to GitHub's page about a step, in Markdown."""
    good, bad = _SUM.split()
    mark = bad if outcome.status else good
    rows = [("tree", outcome.target), ("result", _verdict(outcome)), *_figures(outcome)]
    if outcome.hint:
        rows.append(("hint", "; ".join(outcome.hint.splitlines())))
    rows += [("note", " ".join(text.splitlines())) for text in outcome.remarks]
    table = "".join(f"| {name} | {_cell(value)} |\n" for name, value in rows)
    text = f"### {mark} <code>{_cell(outcome.words)}</code>\n\n| | |\n|---|---|\n{table}\n"
    last = _last_lines(outcome.last, _SUMMARISED_LINES)
    if outcome.status and last:
        shown = html.escape("\n".join(last))
        text += f"<details><summary>Last lines</summary>\n\n<pre>{shown}</pre>\n\n</details>\n\n"
    return text


def figures(outcome: Outcome) -> str:
    """Return on one line what the run used."""
    return ", ".join(f"{name} {value}" for name, value in _figures(outcome))


def _figures(outcome: Outcome) -> list[tuple[str, str]]:
    found = [("time", f"{outcome.wall_s:.1f} s")]
    usage = outcome.usage
    if usage is None:
        return found
    found.append(("processor", f"{usage.user_s:.1f} s user, {usage.system_s:.1f} s system"))
    of = "" if usage.peak_of == "container" else " (of one process)"
    found.append(("memory", f"{_size(usage.peak_memory)} at most{of}"))
    everywhere = "" if usage.written is None else f"{_size(usage.written)}, and "
    found.append(("written", f"{everywhere}{_size(usage.stored)} to disks"))
    return found


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _verdict(outcome: Outcome) -> str:
    if outcome.cause:
        return visible(outcome.cause)
    return f"ended with status {outcome.status}" if outcome.status else "done"


def _process(process: Process) -> str:
    return visible(f"{process.pid} {process.state} {' '.join(process.argv)}")


def _last_lines(content: bytes, count: int) -> list[str]:
    lines = content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    found = [visible(line.rstrip("\r"))[-_LINE_LIMIT:] for line in lines if line.strip()]
    return found[-count:]


def _cell(text: str) -> str:
    return html.escape(visible(text)).replace("|", "&#124;").replace("`", "&#96;")


def _github_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _github_property(text: str) -> str:
    return _github_text(text).replace(":", "%3A").replace(",", "%2C")
