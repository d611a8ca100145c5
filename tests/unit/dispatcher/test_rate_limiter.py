"""Gates let through exactly the moments they hold, and never make up for missed ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.endpoints import SlotRequest, Slots
from dispatcher.rate_limiter import HORIZON, LATE, DatabaseTime, RateLimiter

STEP = 0.1


def limiter(first: float = 100.0, granted: int = 3, rate: float = 1 / STEP) -> RateLimiter:
    one = RateLimiter("mailing/1", rate)
    one.add(first, Slots(0.0, 1 / rate, granted))
    return one


def test_one_request_starts_per_moment_once_it_has_come() -> None:
    one = limiter()
    assert not one.open(99.99)
    assert one.open(100.0)
    one.take()
    assert not one.open(100.0 + STEP / 2)
    assert one.open(100.0 + STEP)


def test_what_was_missed_is_lost_and_not_made_up_for() -> None:
    one = limiter(granted=5)
    now = 100.0 + 2 * STEP + LATE / 2
    assert one.ready(now) == 1  # the third; two were missed
    one.take()
    assert not one.open(now)
    assert one.open(100.0 + 3 * STEP)


def test_moments_of_several_grants_are_used_in_their_order() -> None:
    one = limiter(granted=1)
    one.add(100.0 + STEP, Slots(0.0, STEP, 1))
    assert one.ready(100.0) == 1
    one.take()
    assert not one.open(100.0)
    assert one.open(100.0 + STEP)


def test_a_rate_limiter_requests_slots_for_what_waits_up_to_its_horizon() -> None:
    one = RateLimiter("mailing/1", 100.0)
    assert one.request(100.0, 0) is None
    assert one.request(100.0, 7) == SlotRequest("mailing/1", 100.0, 7)
    assert one.request(100.0, 10_000) == SlotRequest("mailing/1", 100.0, int(100 * HORIZON) + 1)
    one.add(100.0, Slots(0.0, 0.01, 20))
    assert one.request(100.05, 10_000) is None
    assert one.request(100.001 + HORIZON / 2, 10_000) is not None
    assert one.request(100.001 + HORIZON / 2, 20) is None


def test_a_rate_limiter_without_slots_requests_again_when_due() -> None:
    one = RateLimiter("mailing/1", 0.1)
    one.add(109.0, Slots(0.0, 10.0, 0))
    assert one.request(100.0, 5) is None
    assert one.next_at(100.0, 5) == 109.0 - HORIZON / 2
    assert one.request(109.0, 5) is not None


@given(
    looks=st.lists(st.floats(0.0, 0.2), max_size=200),
    rate=st.floats(1.0, 500.0),
)
def test_no_second_sees_more_than_its_share(looks: list[float], rate: float) -> None:
    """However late the looks are. Fails when missed moments are not dropped."""
    now, one, started = 100.0, RateLimiter("mailing/1", rate), []
    next_at = now
    for pause in looks:
        since = max(next_at, now)
        granted = max(0, int((now + HORIZON - since) * rate) + 1)
        one.add(since, Slots(since, 1 / rate, granted))
        next_at = since + granted / rate
        now += pause
        while one.open(now):
            one.take()
            started.append(now)
    for at in started:
        within = sum(at <= other < at + 1.0 for other in started)
        assert within <= rate * (1 + LATE) + 1


def test_the_reading_with_the_shortest_way_counts() -> None:
    time = DatabaseTime()
    time.learn(100.0, 100.4, 5000.3)
    assert abs(time.local(5000.3) - 100.2) < 1e-6
    time.learn(101.0, 101.002, 5001.101)
    assert abs(time.local(5001.101) - 101.001) < 1e-6
    time.learn(102.0, 102.4, 5002.2)
    assert abs(time.local(5001.101) - 101.001) < 1e-6


def test_a_clock_that_jumped_is_followed() -> None:
    time = DatabaseTime()
    time.learn(100.0, 100.002, 5000.0)
    time.learn(101.0, 101.4, 8601.0)
    assert abs(time.local(8601.0) - 101.2) < 1e-6
