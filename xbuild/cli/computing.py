"""The computed values of profiles (plan.computed), each asked for once, of the tree and the host.

Loaded where a profile has such values, or is for certain architectures.
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from typing import TYPE_CHECKING

from xbuild.binary.arch import arch_named, host_arch
from xbuild.cli.limits import read_limit
from xbuild.cli.options import Parsed
from xbuild.cli.places import on_host
from xbuild.cli.settings import request_of
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.processors import parse_models, read_demand, shortfall
from xbuild.emulation.trial import argv0_for, run_trial
from xbuild.errors import InterpreterError, TargetError, UsageError
from xbuild.plan.computed import in_mib
from xbuild.plan.machine import read_shares
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.resources import data_directory
from xbuild.sandbox.portage import COMMAND, probe_features
from xbuild.source.cache import cache_directory
from xbuild.tree.chost import chost_for, fits, is_chost
from xbuild.tree.portage import PortageTree, is_of_profile, read_portage_tree
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import Survey, survey_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.binary.arch import Arch
    from xbuild.emulation.interpreters import Interpreter
    from xbuild.plan.computed import Shares
    from xbuild.plan.request import Request
    from xbuild.sandbox.portage import Probed
    from xbuild.tree.resolve import TreeReader

_CCACHE = GuestPath("/usr/bin/ccache")
_PROBED_UNDER = frozenset(  # options that decide what works in a container
    ("interpreter", "cpu", "binfmt", "private_users", "seccomp", "capability", "drop_capability")
)


class TreeFacts(Record):
    """What computed values need of a tree; ``portage`` is what it says as a Gentoo, or why not."""

    survey: Survey
    chost: str
    portage: PortageTree | TargetError
    has_ccache: bool


class Computing:
    """Works values out for one run; ``typed`` is its command line, without what profiles say.

    ``notes`` is what people should know of the values that were asked for.
    """

    def __init__(self, typed: Parsed) -> None:
        assert typed.target is not None
        self._typed = typed
        self._target = HostPath(os.path.realpath(on_host(typed.target)))
        self.notes: list[str] = []

    def value_of(self, name: str) -> str:
        """Return a value of COMPUTED, "" for one that comes to nothing. Raises XbuildError ones."""
        work_out: Callable[[], str] = getattr(self, f"_{name}_value")
        return work_out()

    def require_arch(self, names: tuple[str, ...], profile: str) -> None:
        """Raise UsageError where a profile is for other architectures than the tree's."""
        arch = self._facts.survey.arch
        assert arch is not None
        if names and arch not in [arch_named(name) for name in names]:
            raise UsageError(
                f"The profile {profile} is for {', '.join(names)}, and {self._target} is"
                f" {arch.common_name}",
                "leave out --profile, or take another tree",
            )

    def require_portage(self) -> PortageTree:
        """Return what a Gentoo tree says of itself. Raises for another, or one that is unsound."""
        return self._portage

    @cached_property
    def _facts(self) -> TreeFacts:
        if os.path.isdir(self._target):
            with DirectoryReader(self._target) as reader:
                return _read_facts(reader, survey_directory(reader))
        from xbuild.image.survey import open_survey, require_root  # only for images

        by_kernel = os.geteuid() == 0
        partition = self._typed.one("partition")
        with open_survey(self._target, partition=partition, by_kernel=by_kernel) as image:
            require_root(image.survey)
            tree = image.survey.tree
            assert image.reader is not None
            assert tree is not None
            return _read_facts(image.reader, tree)

    @cached_property
    def _portage(self) -> PortageTree:
        """What the tree's /etc/portage says, sound. Raises TargetError, UsageError."""
        facts = self._facts
        if isinstance(facts.portage, TargetError):
            raise facts.portage
        arch, profile = facts.survey.arch, facts.portage.profile
        assert arch is not None
        chost = facts.portage.make_conf.get("CHOST")
        if profile is not None and not is_of_profile(profile, arch.name):
            raise _contradiction(self._target, f"follows the profile {profile}", arch)
        if chost is not None and not is_chost(chost):
            raise UsageError(
                f"Not a CHOST in make.conf of {self._target}: {chost[:60]!r}",
                f"such as {chost_for(arch.chost, facts.survey.libc)}",
            )
        if chost is not None and not fits(chost, arch):
            raise _contradiction(self._target, f"has CHOST={chost} in make.conf", arch)
        return facts.portage

    @cached_property
    def _shares(self) -> Shares:
        cpus, memory = self._typed.one("cpus"), self._typed.one("memory")
        return read_shares(
            cpus=None if cpus is None else read_limit("cpus", cpus),
            memory=None if memory is None else int(read_limit("memory", memory)),
        )

    @cached_property
    def _probed(self) -> Probed:
        self.require_portage()
        from xbuild.cli.run import plan_request  # which leads here

        probed = probe_features(plan_request(self._probe_request(), remember=False))
        self.notes += probed.notes
        return probed

    def _probe_request(self) -> Request:
        chosen = Parsed()
        chosen.target, chosen.command = self._target, COMMAND
        chosen.values = {k: v for k, v in self._typed.values.items() if k in _PROBED_UNDER}
        chosen.flags = {"read_only"}
        return replace(request_of(chosen), terminal=(), term=None, piped=(1, 2))

    def _arch_value(self) -> str:
        arch = self._facts.survey.arch
        assert arch is not None
        return arch.name

    def _cache_value(self) -> str:
        return cache_directory()

    def _ccache_value(self) -> str:
        return "ccache" if self._facts.has_ccache else ""

    def _chost_value(self) -> str:
        facts = self._facts
        if not isinstance(facts.portage, TargetError):
            self.require_portage()
        return facts.chost

    def _cores_value(self) -> str:
        return str(self._shares.cores)

    def _jobs_value(self) -> str:
        return str(self._shares.jobs)

    def _half_memory_value(self) -> str:
        return in_mib(self._shares.scratch_bytes)

    def _policies_value(self) -> str:
        return os.path.join(data_directory("profiles"), "policies")

    def _portage_features_value(self) -> str:
        return " ".join(f"-{name}" for name in self._probed.failed)

    def _portage_user_value(self) -> str:
        return "" if self._probed.has_users else "root"

    def _cpu_value(self) -> str:
        """Return the model that CFLAGS ask for, where qemu has it, or "" for qemu's default."""
        arch, cflags = self._facts.survey.arch, self._portage.cflags
        assert arch is not None
        demand = read_demand(arch.name, cflags)
        interpreter = self._interpreter(arch)
        if interpreter is None:
            return ""
        models = _models_of(interpreter)
        typed = self._typed.one("cpu")
        lacking = shortfall(arch.name, demand, typed or demand.model or "", models)
        if lacking:
            self.notes.append(f"CFLAGS in {self._target}: {lacking}")
        return demand.model if demand.model in models and typed is None else ""

    def _interpreter(self, arch: Arch) -> Interpreter | None:
        """Return what emulates the tree; None where this machine runs its programs by itself."""
        if arch == host_arch():
            return None
        with contextlib.suppress(InterpreterError):  # the run itself says what is the matter
            override = request_of(self._typed).interpreter
            return find_interpreter(arch, override=override)
        return None


def _read_facts(reader: TreeReader, survey: Survey) -> TreeFacts:
    portage: PortageTree | TargetError
    try:
        portage = read_portage_tree(reader)
    except TargetError as error:
        portage = error
    declared = None
    if not isinstance(portage, TargetError):
        declared = portage.make_conf.get("CHOST")
    assert survey.arch is not None
    chost = declared or chost_for(survey.arch.chost, survey.libc)
    mode = reader.mode_of(_CCACHE)
    return TreeFacts(survey, chost, portage, mode is not None)


def _models_of(interpreter: Interpreter) -> tuple[str, ...]:
    argv = (argv0_for(interpreter.path, interpreter.arch), "-cpu", "help")
    outcome = run_trial(argv, executable=interpreter.path)
    return parse_models(outcome.output.decode("utf-8", "replace"))


def _contradiction(target: HostPath, said: str, arch: Arch) -> UsageError:
    return UsageError(
        f"{target} {said}, and its programs are {arch.common_name}'s",
        "xbuild inspect tells what they are; correct /etc/portage in the tree",
    )
