from __future__ import annotations

import pytest

from xbuild.binary.arch import arch_named, host_arch
from xbuild.emulation.native import runs_by_itself


def test_this_host_runs_its_own_programs_by_itself() -> None:
    assert runs_by_itself(host_arch())


@pytest.mark.parametrize("name", ["s390x", "alpha"])
def test_a_foreign_processor_is_not_this_one(name: str) -> None:
    assert not runs_by_itself(arch_named(name))
