"""With which ids programs read what a stranger made."""

from __future__ import annotations

from tests.unit.plan.records import host, user_host
from xbuild.plan.host import SubIds
from xbuild.plan.ids import IdMap, IdRange
from xbuild.plan.parsing_ids import parsing_ids

EVERY = (SubIds(0, 2**32 - 1),)
NOBODY = 0x70000000


def spans(ranges: tuple[IdRange, ...]) -> list[tuple[int, int]]:
    assert {span.count for span in ranges} == {1}
    return [(span.inside, span.outside) for span in ranges]


def test_root_s_program_is_nobody_who_reaches_the_owners_files_before_it_is_root() -> None:
    root = host(own_uids=EVERY, own_gids=EVERY)
    first, last = parsing_ids(root, ((0, 0), (1000, 100), (0, 6)))
    assert spans(first.uids) == [(0, NOBODY), (1, 0), (2, 1000)]
    assert spans(first.gids) == [(0, NOBODY), (1, 0), (2, 100), (3, 6)]
    assert (last.uids[0].outside, last.gids[0].outside) == (0, 0)


def test_in_an_outer_container_it_is_the_last_that_is_mapped() -> None:
    few = (SubIds(0, 65536),)
    first, _ = parsing_ids(host(own_uids=few, own_gids=few), ((0, 0), (2**20, 2**20)))
    assert spans(first.uids) == [(0, 65535), (1, 0)]


def test_nobody_else_is_mapped_twice() -> None:
    for ids in parsing_ids(host(own_uids=EVERY, own_gids=EVERY), ((NOBODY, 0), (0, 0), (7, 7))):
        for ranges in (ids.uids, ids.gids):
            assert len({span.outside for span in ranges}) == len(ranges)
            assert len({span.inside for span in ranges}) == len(ranges)


def test_ordinary_users_and_root_who_may_map_nobody_are_themselves() -> None:
    only = IdMap((IdRange(0, 1000, 1),), (IdRange(0, 1000, 1),), "self", has_setgroups=False)
    assert parsing_ids(user_host(), ((1000, 1000),)) == (only,)
    (own,) = parsing_ids(host(can_map_ids=False, own_uids=EVERY, own_gids=EVERY), ((0, 0),))
    assert spans(own.uids) == [(0, 0)]
    one = (SubIds(0, 1),)
    (own,) = parsing_ids(host(own_uids=one, own_gids=one), ((0, 0),))
    assert spans(own.uids) == [(0, 0)]
