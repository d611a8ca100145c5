"""What is counted of outcomes: each message once, each request once, whichever way the batch took."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatcher.counters import Counters, Histogram
from dispatcher.model.outcomes import Failure, Outcome
from dispatcher.model.states import ErrorClass, Reason, Status
from tests.unit.dispatcher.batches import settlement

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def delivered(milliseconds: int) -> Outcome:
    return Outcome(Status.DELIVERED, Reason.NONE, 1, 200, 0, milliseconds, None, None)


def failed(status: Status, kind: ErrorClass) -> Outcome:
    failure = Failure(NOW, kind, "")
    return Outcome(status, Reason.NONE, 1, 503, None, 40, NOW if status is Status.PENDING else None, failure)


def unsent(status: Status) -> Outcome:
    return Outcome(status, Reason.NONE, 0, None, None, None, None, None)


def counted(*outcomes: Outcome) -> Counters:
    counters = Counters(["default"])
    counters.recorded(settlement([(n, 0, outcome) for n, outcome in enumerate(outcomes)]), 0.004)
    return counters


def test_deliveries_are_counted_alike_in_uniform_and_mixed_batches() -> None:
    """The way of batches that are all alike is another one."""
    alike = [delivered(3), delivered(3), delivered(700)]
    pure, mixed = counted(*alike), counted(*alike, unsent(Status.SKIPPED))
    assert pure.messages["default", Status.DELIVERED] == mixed.messages["default", Status.DELIVERED] == 3
    assert pure.attempts == mixed.attempts
    assert pure.latency["default"].counts == mixed.latency["default"].counts
    assert pure.latency["default"].sum == pytest.approx(0.706)
    assert mixed.messages["default", Status.SKIPPED] == 1


def test_a_failed_attempt_counts_though_its_message_goes_on() -> None:
    counters = counted(
        failed(Status.PENDING, ErrorClass.SERVER), failed(Status.FAILED, ErrorClass.REFUSED), delivered(1)
    )
    assert counters.attempts["default", ErrorClass.SERVER] == 1
    assert counters.attempts["default", ErrorClass.REFUSED] == 1
    assert counters.attempts["default", ErrorClass.NONE] == 1
    assert +counters.messages == {("default", Status.FAILED): 1, ("default", Status.DELIVERED): 1}
    assert sum(counters.latency["default"].counts) == 3


def test_every_status_and_class_of_an_endpoint_is_there_from_the_start() -> None:
    counters = Counters(["b", "a", "a"])
    assert len(counters.messages) == 2 * (len(Status) - 1)
    assert len(counters.attempts) == 2 * len(ErrorClass)
    assert set(counters.messages.values()) == {0}


def test_a_value_on_a_bound_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 14.0
