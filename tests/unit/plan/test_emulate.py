"""How each architecture of a tree runs: which way is chosen, and what is said where none is."""

from __future__ import annotations

import pytest

from tests.capability import require
from tests.unit.plan.records import host, request, survey
from xbuild.binary.arch import arch_named, host_arch
from xbuild.emulation.interpreters import find_interpreter
from xbuild.errors import BinfmtError, InterpreterError
from xbuild.plan.emulate import choose_emulation
from xbuild.record import HostPath

FOREIGN = "s390x"
NOWHERE = HostPath("/no/such/qemu")


def has_interpreter(arch: str) -> bool:
    try:
        find_interpreter(arch_named(arch))
    except InterpreterError:
        return False
    return True


def test_the_host_s_own_programs_run_by_themselves() -> None:
    name = host_arch().name
    (found,) = choose_emulation(survey(name), request(), host(), remember=False)
    assert (found.arch.name, found.way, found.interpreter) == (name, "native", None)


def test_the_leading_architecture_must_run() -> None:
    wanted = request(interpreter=NOWHERE)
    with pytest.raises(InterpreterError, match=f"{NOWHERE}: there is no such file"):
        choose_emulation(survey(FOREIGN), wanted, host(), remember=False)


def test_others_may_be_missing() -> None:
    """tilegx has no emulator in any qemu of today: a tree that has such programs runs without."""
    found = choose_emulation(
        survey(host_arch().name, architectures=(host_arch().name, "tilegx")),
        request(),
        host(),
        remember=False,
    )
    assert [each.way for each in found] == ["native", "missing"]
    assert "tilegx" in found[1].problem


def test_private_where_the_kernel_has_it() -> None:
    require("qemu", has_interpreter(FOREIGN), f"there is no static qemu-{FOREIGN}")
    for choice in ("auto", "private"):
        wanted = request(binfmt=choice)
        (found,) = choose_emulation(survey(FOREIGN), wanted, host(), remember=False)
        assert found.way == "private"
        assert found.interpreter is not None


def test_old_kernels_need_an_entry_of_the_host_s() -> None:
    """Linux 6.1 is known by its number here; the registry is this machine's own, as it is."""
    old = host(kernel=(6, 1))
    try:
        (found,) = choose_emulation(survey(FOREIGN), request(), old, remember=False)
    except BinfmtError as caught:
        error = caught
    else:
        assert (found.way, found.entry is not None) == ("host", True)
        return
    first, *_, last = error.hint.splitlines()
    assert first.startswith("as root: ")
    assert last == "or run a newer kernel: 6.1 has no private registries, 6.7 and later do"
