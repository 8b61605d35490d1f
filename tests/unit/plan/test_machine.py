"""What control groups say of memory and processors, in the words of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbuild.plan.machine import memory_limits, processor_quotas, read_shares

UNLIMITED_V1 = str((1 << 63) - 4096)


@pytest.mark.parametrize(
    ("files", "processors", "memory"),
    [
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.high": "max"}, [], []),
        ({"cpu.max": "150000 100000", "memory.max": "1048576"}, [1.5], [1 << 20]),
        ({"cpu.max": "25000 50000", "memory.high": "4096", "memory.max": "max"}, [0.5], [4096]),
        (
            {
                "cpu.cfs_quota_us": "-1",
                "cpu.cfs_period_us": "100000",
                "memory.limit_in_bytes": UNLIMITED_V1,
            },
            [],
            [int(UNLIMITED_V1)],
        ),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, [3.0], []),
        ({"cpu.cfs_quota_us": "300000"}, [], []),
        ({}, [], []),
    ],
)
def test_limits_of_a_group(
    tmp_path: Path, files: dict[str, str], processors: list[float], memory: list[int]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    groups = (str(tmp_path),)
    assert list(processor_quotas(groups)) == processors
    assert list(memory_limits(groups)) == memory


def test_less_than_a_processor_is_one() -> None:
    shares = read_shares(cpus=0.3, memory=256 << 20)
    assert (shares.cores, shares.jobs, shares.scratch_bytes) == (1, 1, 128 << 20)
