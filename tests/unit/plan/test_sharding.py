"""Packages shared out: each once, none lost, even by weight, and the same every time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import UsageError
from xbuild.plan.sharding import Package, make_jobs, parse_packages, share_out

PACKAGES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=6), st.floats(0.1, 1000), min_size=1, max_size=30
).map(lambda found: tuple(Package(name, weight) for name, weight in found.items()))


@given(PACKAGES, st.integers(1, 12))
def test_each_package_is_in_one_share(packages: tuple[Package, ...], shards: int) -> None:
    shares = share_out(packages, shards)
    assert sorted(name for share in shares for name in share) == sorted(p.name for p in packages)
    assert len(shares) == min(shards, len(packages))
    assert all(shares)
    assert shares == share_out(packages, shards)


@given(PACKAGES, st.integers(1, 12))
def test_shares_are_about_even(packages: tuple[Package, ...], shards: int) -> None:
    weights = {package.name: package.weight for package in packages}
    loads = [sum(weights[name] for name in share) for share in share_out(packages, shards)]
    heaviest = max(weights.values())
    assert max(loads) - min(loads) <= heaviest + 1e-6


def test_the_given_order_is_kept_within_a_share() -> None:
    packages = tuple(Package(name) for name in ("libb", "a", "zlib", "c"))
    assert share_out(packages, 2) == (("libb", "zlib"), ("a", "c"))


def test_runners_of_an_architecture_come_before_those_for_all() -> None:
    packages = tuple(Package(name) for name in "abc")
    jobs = make_jobs(
        packages, ("arm64", "armhf"), 3, [(None, "one"), (None, "two"), ("arm64", "x")]
    )
    assert [(job.arch, job.shard, job.runner) for job in jobs] == [
        *(("arm64", 1, "x"), ("arm64", 2, "x"), ("arm64", 3, "x")),
        *(("armhf", 1, "one"), ("armhf", 2, "two"), ("armhf", 3, "one")),
    ]
    assert {job.runner for job in make_jobs(packages, ("arm64",), 3, [])} == {None}


def test_a_file_of_packages() -> None:
    text = "# the base\nzlib 12.5\n\nlua # small\n=dev-lang/perl-5.40 900\n"
    assert parse_packages(text, "list") == (
        *(Package("zlib", 12.5), Package("lua")),
        Package("=dev-lang/perl-5.40", 900),
    )


BAD = {
    "zlib 1 2": "list:2: not NAME [WEIGHT]: 'zlib 1 2'",
    "zlib many": "list:2: Not a weight: 'many'",
    "zlib 0": "list:2: Not a weight: '0'",
    "zlib -1": "list:2: Not a weight: '-1'",
    "zlib 1e9": "list:2: Not a weight: '1e9'",
    "-rf": "list:2: Not a package's name: '-rf'",
    "a;b": "list:2: Not a package's name: 'a;b'",
    "$(x)": "list:2: Not a package's name: '$(x)'",
    "${{x}}": "list:2: Not a package's name: '${{x}}'",
    "a'b": "list:2: Not a package's name: \"a'b\"",
    "é": "list:2: Not a package's name: 'é'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_lines_are_named(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_packages(f"good\n{line}\n", "list")
    assert caught.value.message == BAD[line]
