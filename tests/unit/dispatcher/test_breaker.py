"""A breaker opens on a share of failures, lets one probe through, and forgets what lies before its closing."""

from __future__ import annotations

from dispatcher.breaker import MIN_REQUESTS, PROBE_FIRST, RECENT, RUN, SLOW_RUN, WINDOW, Breaker
from dispatcher.model.endpoints import EndpointState
from dispatcher.model.states import BreakerState


def observed(breaker: Breaker, *failed: bool, at: float = 100.0) -> list[bool]:
    return [breaker.observe(at, at - 0.1, one) for one in failed]


def test_it_opens_once_enough_requests_failed() -> None:
    assert observed(Breaker(), *[True] * MIN_REQUESTS) == [False] * (MIN_REQUESTS - 1) + [True]
    half = Breaker()
    assert not any(observed(half, *[False] * MIN_REQUESTS))
    assert observed(half, *[True] * MIN_REQUESTS)[-1]
    assert half.failure_ratio == 0.5


def test_a_small_share_of_failures_never_opens_it() -> None:
    breaker = Breaker()
    assert not any(observed(breaker, *[False, False, True] * 100))


def test_what_lies_outside_of_the_window_does_not_count() -> None:
    breaker = Breaker()
    assert not any(observed(breaker, *[True] * (MIN_REQUESTS - 1)))
    assert observed(breaker, False, True, at=100.0 + WINDOW + 1) == [False, False]


def test_failures_in_a_row_open_it_whatever_succeeded_before() -> None:
    breaker = Breaker()
    assert not any(observed(breaker, *[False] * 50_000))
    assert observed(breaker, *[True] * RUN) == [False] * (RUN - 1) + [True]


def test_half_of_the_last_answers_open_it_whatever_succeeded_before() -> None:
    breaker = Breaker()
    assert not any(observed(breaker, *[False] * 50_000))
    assert True in observed(breaker, *[True, True, True, False] * RECENT)[: 2 * RECENT]


def test_an_endpoint_that_hangs_with_one_request_at_a_time_opens_it() -> None:
    breaker = Breaker()
    found = [breaker.observe(100.0 + 10 * n, 90.0 + 10 * n, True) for n in range(SLOW_RUN)]
    assert found == [False] * (SLOW_RUN - 1) + [True]
    assert not any(observed(Breaker(), *[True] * SLOW_RUN)), "a few at once are no outage"


def test_while_it_is_open_one_probe_decides() -> None:
    breaker = Breaker()
    breaker.open(100.0)
    assert not breaker.closed
    assert breaker.probe_at == 100.0 + PROBE_FIRST
    breaker.probe(101.0, 110.0)
    assert breaker.probing(105.0)
    assert not breaker.probing(110.0)
    assert breaker.decides(105.0, began=101.5)
    assert not breaker.decides(105.0, began=99.5)  # it was under way when the breaker opened
    breaker.close(106.0)
    assert breaker.closed


def test_requests_from_before_it_was_closed_say_nothing() -> None:
    breaker = Breaker()
    breaker.open(100.0)
    breaker.close(101.0)
    late = [breaker.observe(105.0, 100.5, True) for _ in range(3 * MIN_REQUESTS)]
    assert not any(late)
    assert observed(breaker, *[True] * MIN_REQUESTS, at=106.0)[-1]


def test_it_follows_what_all_replicas_know() -> None:
    breaker = Breaker()
    breaker.learn(100.0, EndpointState(BreakerState.HALF_OPEN, 3.0))
    assert (breaker.state, breaker.probe_at) == (BreakerState.HALF_OPEN, 103.0)
    breaker.learn(102.0, None)
    assert breaker.closed


def test_its_own_opening_is_not_undone_before_the_others_can_know() -> None:
    breaker = Breaker()
    breaker.open(100.0)
    breaker.learn(100.1, None)
    assert not breaker.closed
    breaker.probe(101.0, 110.0)
    breaker.learn(105.0, EndpointState(BreakerState.OPEN, 9.0))
    assert breaker.probing(105.0)
