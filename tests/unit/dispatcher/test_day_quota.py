"""Permits of a day: how many are asked for, when they are over, and what goes back."""

from __future__ import annotations

from dispatcher.day_quota import CHUNK, IDLE, RECHECK, DayQuota
from dispatcher.fair_queue import FairQueue
from dispatcher.model.quotas import DayLimit, QuotaGrant, QuotaReturn, day_limit
from tests.unit.dispatcher import batches

LIMIT = DayLimit(1000, "Europe/Moscow")
ENDS = 500.0


def quota(granted: int = 0, now: float = 100.0, ends: float = ENDS, left: int = 0) -> DayQuota:
    made = DayQuota("mailing/1", LIMIT)
    made.add(now, now, QuotaGrant("2026-03-01", granted, left, ends - now))
    return made


def test_nothing_leaves_before_the_database_permits_it() -> None:
    made = DayQuota("mailing/1", LIMIT)
    assert made.ready(100.0) == 0
    request = made.request(100.0, 7)
    assert request is not None
    assert (request.key, request.limit, request.wanted) == ("mailing/1", LIMIT, 7)


def test_permits_are_used_one_for_a_message() -> None:
    made = quota(5)
    made.take(3)
    assert made.ready(101.0) == 2
    made.put_back(101.0)
    assert made.ready(101.0) == 3


def test_a_replica_holds_less_than_two_chunks() -> None:
    made = quota(CHUNK - 1, left=9000)
    request = made.request(101.0, 100_000)
    assert request is not None
    assert request.wanted == CHUNK
    made.add(101.0, 101.0, QuotaGrant("2026-03-01", CHUNK, 9000, ENDS - 101))
    assert made.request(102.0, 100_000) is None
    assert made.request(102.0, 1) is None


def test_permits_end_with_their_day() -> None:
    """Fails when what was permitted today leaves tomorrow, on top of tomorrow's."""
    made = quota(5)
    assert made.ready(ENDS - 0.01) == 5
    assert made.ready(ENDS) == 0
    assert made.request(ENDS, 3) is not None
    made.add(ENDS, ENDS, QuotaGrant("2026-03-02", 3, 0, 86400.0))
    made.put_back(ENDS - 1)
    assert made.ready(ENDS) == 3
    assert made.unneeded(ENDS, 3) is None


def test_a_full_day_is_asked_about_seldom_and_again_when_it_ends() -> None:
    made = quota(0)
    assert made.is_full()
    assert made.request(100.0 + RECHECK / 2, 500) is None
    probe = made.request(100.0 + RECHECK, 0)
    assert probe is not None
    assert probe.wanted == 0
    assert quota(0, now=ENDS - 1).next_at(ENDS - 1, 0) == ENDS


def test_a_day_without_more_permits_is_full_once_those_held_are_used() -> None:
    made = quota(2)
    assert not made.is_full()
    assert made.request(100.5, 500) is None
    made.take(2)
    assert made.is_full()


def test_permits_without_messages_go_back_after_a_while() -> None:
    made = quota(10)
    assert made.unneeded(100.5, 4) is None
    assert made.unneeded(100.0 + IDLE, 4) == QuotaReturn("mailing/1", "2026-03-01", 6)
    assert made.ready(103.0) == 4
    assert made.unneeded(103.0, 4) is None


def test_another_limit_gives_back_what_the_last_one_permitted() -> None:
    made = quota(10)
    made.follow(DayLimit(5, "Europe/Moscow"))
    assert made.ready(101.0) == 0
    assert made.unneeded(101.0, 10) == QuotaReturn("mailing/1", "2026-03-01", 10)
    assert made.request(101.0, 3) is not None


def test_a_mailing_of_a_full_day_is_passed_over() -> None:
    """Its quota outlives its leases: that the day is full stays known."""
    queue = FairQueue()
    limited = batches.mailing(1, day_limit=day_limit(5, ""))
    queue.add(batches.lease(3, limited))
    queue.add(batches.lease(2, batches.mailing(2)))
    lease, count = queue.next(100.1, 10)
    assert lease is not None
    assert (lease.mailing.id, count) == (2, 8)
    queue.quotas[1].add(100.1, 100.1, QuotaGrant("2026-03-01", 2, 0, 400.0))
    lease.take(2)
    queue.tidy()
    lease, count = queue.next(100.1, 10)
    assert lease is not None
    assert (lease.mailing.id, count) == (1, 2)
    assert queue.startable(100.1) == 2
