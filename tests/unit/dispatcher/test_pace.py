"""The pace of an endpoint that asks for patience is found out: pauses first, then a rate that it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from dispatcher.pace import FIRST_PAUSE, LONGEST_PAUSE, Pace

LATENCY = 0.02
STEP = 0.003
"""Seconds between two looks at what may start, as in the engine."""

Gateway = Callable[[float], bool]
"""Return whether it takes a request that comes at this moment."""


def bucket(rate: float, burst: int) -> Gateway:
    """Return a gateway that takes `rate` a second, and `burst` at once."""
    state = [float(burst), 0.0]

    def takes(now: float) -> bool:
        state[0] = min(float(burst), state[0] + (now - state[1]) * rate)
        state[1] = now
        if state[0] < 1:
            return False
        state[0] -= 1
        return True

    return takes


def windows(rate: int) -> Gateway:
    """Return a gateway that takes `rate` in every second of the clock."""
    taken: dict[int, int] = {}

    def takes(now: float) -> bool:
        taken[int(now)] = taken.get(int(now), 0) + 1
        return taken[int(now)] <= rate

    return takes


def run(gateway: Gateway, seconds: float, retry_after: float | None, in_flight: int = 64) -> tuple[int, int]:
    """Send as fast as the pace lets through; return how many were accepted, and how many were not."""
    pace, now, accepted, refused = Pace(), 1000.0, 0, 0
    under_way: deque[float] = deque()
    while now < 1000.0 + seconds:
        while under_way and under_way[0] + LATENCY <= now:
            began = under_way.popleft()
            if gateway(began):
                accepted += 1
                pace.accepted(now)
            else:
                refused += 1
                pace.throttled(now, began, retry_after)
        room = (1 if pace.trial else in_flight) - len(under_way)
        for _ in range(pace.ready(now, room) if room > 0 else 0):
            pace.take(now)
            under_way.append(now)
        now += STEP
    return accepted, refused


@pytest.mark.parametrize("retry_after", [None, 1.0, 2.0])
@pytest.mark.parametrize(
    "gateway",
    [lambda: bucket(20, 20), lambda: bucket(20, 100), lambda: windows(20)],
    ids=["burst of a second", "burst of five", "windows"],
)
def test_a_gateway_that_takes_20_a_second_gets_18_at_least(
    gateway: Callable[[], Gateway], retry_after: float | None
) -> None:
    accepted, refused = run(gateway(), 300.0, retry_after)
    assert accepted >= 18 * 300
    assert refused < 0.1 * accepted


def test_a_gateway_that_takes_no_two_at_once_gets_nearly_its_rate() -> None:
    accepted, refused = run(bucket(20, 1), 300.0, 1.0)
    assert accepted >= 17 * 300
    assert refused < 100


def test_a_fast_gateway_gets_its_rate_too() -> None:
    accepted, _ = run(bucket(500, 50), 60.0, 1.0)
    assert accepted >= 0.8 * 500 * 60


def test_pauses_double_while_nothing_is_accepted_up_to_a_minute() -> None:
    pace, now, pauses = Pace(), 1000.0, []
    for _ in range(9):
        pauses.append(pace.throttled(now, now - 0.01, None))
        assert not pace.ready(now, 64)
        now = pace.until + 0.001
        assert pace.ready(now, 64)
        assert pace.trial
        now += 0.01
    assert pauses == [FIRST_PAUSE, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_the_endpoint_says_itself_how_long_to_wait() -> None:
    pace = Pace()
    assert pace.throttled(1000.0, 999.9, 2.0) == 2.0
    assert pace.throttled(1000.1, 999.9, 2.0) == 0.0, "it was under way when the first answer came"
    assert pace.until == 1002.0


def test_one_message_is_tried_after_a_pause_until_one_is_accepted() -> None:
    pace = Pace()
    pace.throttled(1000.0, 999.9, 2.0)
    assert pace.ready(1002.0, 64)
    assert pace.trial
    pace.accepted(1002.1)
    assert not pace.trial
    assert pace.is_free


def test_a_pause_that_another_replica_found_holds_here() -> None:
    pace = Pace()
    pace.learn(1000.0, 5.0)
    assert not pace.ready(1004.9, 64)
    pace.learn(1002.0, 3.0)
    assert pace.until == 1005.0
    assert pace.ready(1005.0, 64)


def test_an_endpoint_that_takes_more_again_is_no_longer_held_back() -> None:
    accepted, refused = run(lambda now: now > 1001.0, 200.0, 1.0)
    assert refused < 200
    assert accepted > 100_000
