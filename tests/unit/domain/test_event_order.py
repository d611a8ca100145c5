"""How pages of buckets become one log: nothing left out, in order of time, never at a standstill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.outcome_events import Level
from server.domain.change_feed import Positions
from server.domain.events import BucketPage, RecordedEvent, in_order

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def logged(second: int, name: str = "") -> RecordedEvent:
    return RecordedEvent(BEGIN + timedelta(seconds=second), Level.INFO, name, "", 0, 0, 0, "", {})


def page(entries: list[RecordedEvent], after: int, most: int, span: int) -> BucketPage:
    """Return what the database returns of a bucket that holds `entries`, of which the named ones are asked for."""
    numbered = [(no, one) for no, one in enumerate(entries, 1) if after < no <= after + span]
    chosen = [(no, one) for no, one in numbered if one.event][:most]
    full = len(chosen) == most
    reached = chosen[-1][0] if full else min(after + span, len(entries))
    reached_at = None if full or not numbered else numbered[-1][1].at
    return BucketPage(after, chosen, max(reached, after), reached_at, len(entries), 0)


def read_all(buckets: list[list[RecordedEvent]], most: int, span: int) -> list[RecordedEvent]:
    positions: Positions = (0,) * len(buckets)
    found: list[RecordedEvent] = []
    while True:
        pages = [page(entries, after, most, span) for entries, after in zip(buckets, positions, strict=True)]
        entries, after = in_order(pages)
        found += entries
        assert all(new >= old for new, old in zip(after, positions, strict=True))
        if not any(one.more for one in pages):
            return found
        assert after != positions, "it stands still"
        positions = after


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 8),
)
def test_every_entry_comes_once_whatever_the_pages(times: list[list[tuple[int, bool]]], most: int, span: int) -> None:
    """Fails when a bucket that has more does not hold the others back, or when it holds itself back."""
    buckets = [
        [logged(second, f"{b}.{n}" if chosen else "") for n, (second, chosen) in enumerate(entries)]
        for b, entries in enumerate(times)
    ]
    found = [one.event for one in read_all(buckets, most, span)]
    assert sorted(found) == sorted(one.event for entries in buckets for one in entries if one.event)
    for b, entries in enumerate(buckets):
        own = [event for event in found if event.startswith(f"{b}.")]
        assert own == [one.event for one in entries if one.event]


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=30).map(sorted), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 8),
)
def test_where_numbers_follow_the_clock_all_are_in_order_of_time(times: list[list[int]], most: int, span: int) -> None:
    buckets = [[logged(second, str(second)) for second in seconds] for seconds in times]
    found = [int(one.event) for one in read_all(buckets, most, span)]
    assert found == sorted(found)
