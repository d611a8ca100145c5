"""Where tables lie on a cluster, and how buckets are spread over its nodes."""

from __future__ import annotations

from collections import Counter

import pytest

from server.storage.distribution import Lying, misplaced, moves
from server.storage.layout import FIRST, TABLES, Place

A, B, C = ("a", 5432), ("b", 5432), ("c", 5432)
HOME = 7


def right(name: str) -> Lying:
    place = TABLES[name]
    key = place.value if place in (Place.BUCKET, Place.PHONE) else None
    return Lying("n" if place is Place.EVERYWHERE else "h", key, HOME if place is Place.BUCKET else 9)


LAID_OUT = {name: right(name) for name, place in TABLES.items() if place is not Place.COORDINATOR}


def test_a_cluster_as_it_is_laid_out_has_no_table_elsewhere() -> None:
    assert misplaced(LAID_OUT) == []


@pytest.mark.parametrize(
    ("table", "lying"),
    [
        ("messages", Lying("n", None, HOME)),
        ("messages", Lying("h", "client_id", HOME)),
        ("messages", Lying("h", "bucket", HOME + 1)),
        ("mailings", Lying("h", "id", 9)),
        ("client_phones", Lying("h", "bucket", HOME)),
        ("endpoints", Lying("n", None, 9)),
    ],
)
def test_a_table_that_lies_elsewhere_is_named(table: str, lying: Lying) -> None:
    (wrong,) = misplaced({**LAID_OUT, table: lying})
    assert f"table {table} " in wrong
    assert f"undistribute_table('{table}')" in wrong


def test_tables_of_others_are_nobodys_concern() -> None:
    assert misplaced({FIRST: right(FIRST), "theirs": Lying("h", "id", 3)}) == []


@pytest.mark.parametrize(
    ("placed", "nodes", "most"),
    [
        ([(1, A), (2, A), (3, A), (4, B)], [A, B], 2),
        ([(1, A), (1, A), (1, A), (2, A), (3, B), (4, B)], [A, B], 3),
        ([(n, A) for n in range(16)], [A, B, C], 6),
        ([(n // 3, A if n < 40 else B) for n in range(64)], [A, B], 33),
    ],
)
def test_no_node_has_many_more_buckets_than_another(
    placed: list[tuple[int, tuple[str, int]]], nodes: list[tuple[str, int]], most: int
) -> None:
    where = dict(placed)
    for shard, source, target in moves(placed, nodes):
        assert where[shard] == source
        where[shard] = target
    assert max(Counter(where[shard] for shard, _ in placed).values()) <= most


def test_buckets_that_are_spread_stay_where_they_are() -> None:
    assert moves([(1, A), (2, B), (3, A)], [A, B]) == []
    assert moves([(1, A), (1, A)], [A, B]) == []
