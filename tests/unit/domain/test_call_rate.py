"""The rate of calls per principal, against the definition of a token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain import call_rate as limits
from server.domain.call_rate import CallRate
from server.domain.errors import RateExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def takes(rate: CallRate, principal: str = "a") -> bool:
    try:
        rate.take(principal)
    except RateExceeded:
        return False
    return True


@given(st.floats(0.1, 50), st.lists(st.floats(0, 3), max_size=60))
def test_it_is_a_token_bucket_of_a_second(per_second: float, pauses: list[float]) -> None:
    clock = Clock()
    rate = CallRate(per_second, clock)
    size = tokens = max(per_second, 1.0)
    for pause in pauses:
        clock.now += pause
        tokens = min(size, tokens + pause * per_second)
        if abs(tokens - 1) < 1e-6:  # either is right
            return
        assert takes(rate) == (tokens > 1)
        tokens -= tokens > 1


def test_a_rejected_caller_succeeds_after_the_wait_it_was_given() -> None:
    clock = Clock()
    rate = CallRate(3.0, clock)
    assert [takes(rate) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(RateExceeded) as caught:
        rate.take("a")
    assert caught.value.retry_after is not None
    clock.now += caught.value.retry_after
    assert takes(rate)
    assert not takes(rate)


def test_principals_do_not_share_and_the_quiet_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when nobody is forgotten: the table would grow with every host that ever called."""
    monkeypatch.setattr(limits, "FORGET_ABOVE", 100)
    clock = Clock()
    rate = CallRate(1.0, clock)
    for number in range(10_000):
        clock.now += 0.1
        assert takes(rate, str(number))
    assert rate.remembered <= 200
    assert not takes(rate, "9999")


def test_no_limit_is_no_limit() -> None:
    assert all(takes(CallRate(0.0, Clock())) for _ in range(10_000))
