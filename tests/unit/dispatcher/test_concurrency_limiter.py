"""The limit finds the level at which an endpoint's rate stops growing, and backs off."""

from __future__ import annotations

from random import Random

import pytest

from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.model.states import ErrorClass


def work(limit: ConcurrencyLimit, seconds: float, latency: float, capacity: float, now: float = 1.0) -> float:
    """Let a modelled endpoint answer: `latency` seconds each, `capacity` requests a second at most."""
    until = now + seconds
    while now < until:
        duration = max(latency, limit.value / capacity)
        for _ in range(limit.value):
            limit.observe(now + duration, duration, ErrorClass.NONE, limit.value)
        now += duration
    return now


@pytest.mark.parametrize(
    ("latency", "capacity", "lowest", "highest"),
    [
        (0.05, 1e9, 1024, 1024),
        (0.05, 5_000, 250, 512),
        (0.001, 50_000, 50, 128),
        (0.2, 100, 20, 64),
    ],
)
def test_it_settles_where_the_rate_stops_growing(latency: float, capacity: float, lowest: int, highest: int) -> None:
    limit = ConcurrencyLimit(1024)
    work(limit, 20, latency, capacity)
    assert lowest <= limit.kept <= highest


def test_it_halves_on_overload_and_recovers() -> None:
    limit = ConcurrencyLimit(1024)
    now = work(limit, 10, 0.05, 1e9)
    for _ in range(3 * limit.value):
        limit.observe(now, 0.05, ErrorClass.THROTTLED, limit.value)
    assert limit.value <= 512
    work(limit, 20, 0.05, 1e9, now)
    assert limit.value == 1024


def test_it_stays_when_there_is_too_little_work_to_fill_it() -> None:
    limit = ConcurrencyLimit(1024)
    for n in range(10_000):
        limit.observe(1.0 + n * 0.001, 0.001, ErrorClass.NONE, 3)
    assert limit.value == 64


def test_chance_does_not_raise_it() -> None:
    # An endpoint that bears 5,000 a second, whose rate scatters by a fifth from window to window.
    limit, random, now = ConcurrencyLimit(1024), Random(1), 1.0
    now = work(limit, 5, 0.001, 5_000)
    found = limit.kept
    for _ in range(2000):
        now = work(limit, 0.1, 0.001, 5_000 * random.uniform(0.8, 1.2), now)
    assert limit.kept <= 2 * found


def test_a_pause_between_two_mailings_is_no_slowness_of_the_endpoint() -> None:
    limit, now = ConcurrencyLimit(1024), 1.0
    now = work(limit, 5, 0.001, 5_000)
    found, rate = limit.kept, limit.kept_rate
    for _ in range(50):
        limit.idle()
        now = work(limit, 0.05, 0.001, 5_000, now + 5.0)
    assert limit.kept == found
    assert limit.kept_rate == pytest.approx(rate, rel=0.05)


def test_it_never_leaves_its_bounds() -> None:
    limit = ConcurrencyLimit(3)
    for n in range(1000):
        limit.observe(1.0 + n, 1.0, ErrorClass.TIMEOUT, limit.value)
    assert limit.value == 1
    work(limit, 100, 0.01, 1e9, 5000.0)
    assert limit.value == 3
