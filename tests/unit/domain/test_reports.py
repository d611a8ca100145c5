"""What a report makes of counters, without a database."""

from __future__ import annotations

import math
from collections import Counter as Counters
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from dispatcher.model.states import Reason, Status
from server.domain.reports import (
    Counter,
    StatusCount,
    bin_bounds,
    course_of,
    latency_bins,
    latency_quantile,
    reason_counts,
    status_counts,
)

EARLY, LATE, LATER = (datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3))


def bin_of(milliseconds: int) -> int:
    """As the database has it: see latency_bin."""
    return math.floor(math.log(milliseconds + 1.0) * 8)


def quantile(latencies: list[int], share: float) -> float:
    found = latency_quantile(latency_bins(Counters(map(bin_of, latencies))), share)
    assert found is not None
    return found / timedelta(milliseconds=1)


def test_statuses_are_in_order_with_first_and_last_time_of_all_reasons() -> None:
    counters = [
        Counter(Status.FAILED, Reason.REFUSED, 2, LATE, LATER),
        Counter(Status.DELIVERED, Reason.NONE, 5, EARLY, LATER),
        Counter(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 3, EARLY, LATE),
    ]
    assert status_counts(counters) == (
        StatusCount(Status.DELIVERED, 5, EARLY, LATER),
        StatusCount(Status.FAILED, 5, EARLY, LATER),
    )
    assert status_counts([]) == ()


def test_reasons_are_of_undelivered_messages_the_most_frequent_first() -> None:
    counters = [
        Counter(Status.PENDING, Reason.NONE, 9, EARLY, LATE),
        Counter(Status.DELIVERED, Reason.NONE, 9, EARLY, LATE),
        Counter(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 2, EARLY, LATE),
        Counter(Status.SKIPPED, Reason.OPTED_OUT, 4, EARLY, LATE),
        Counter(Status.FAILED, Reason.REFUSED, 2, EARLY, LATE),
    ]
    assert reason_counts(counters) == ((Reason.OPTED_OUT, 4), (Reason.REFUSED, 2), (Reason.ATTEMPTS_EXHAUSTED, 2))


def test_a_bin_holds_just_the_milliseconds_that_fall_into_it() -> None:
    for milliseconds in [*range(3000), *(round(1.01**n) for n in range(700, 1500))]:
        lowest, highest = bin_bounds(bin_of(milliseconds))
        assert lowest <= milliseconds <= highest
        assert bin_of(lowest) == bin_of(highest) == bin_of(milliseconds)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.001, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_a_quantile_is_as_exact_as_it_says(seed: int, share: float) -> None:
    random = Random(seed)
    spread = random.uniform(0.1, 3)
    latencies = sorted(int(random.lognormvariate(random.uniform(0, 7), spread)) for _ in range(random.randint(1, 2000)))
    true = latencies[math.ceil(share * len(latencies)) - 1]
    found = quantile(latencies, share)
    assert abs(found - true) < 0.134 * (true + 1)
    if true <= 9:
        assert found == true


def test_quantiles_of_few_requests_and_of_none() -> None:
    assert quantile([3], 0.99) == 3
    assert quantile([0, 0, 9], 0.5) == 0
    assert quantile([0, 8, 9], 1.0) == 9
    assert latency_quantile((), 0.5) is None


def test_latencies_of_one_bin_are_taken_as_evenly_spread() -> None:
    lowest, highest = bin_bounds(bin_of(1000))
    found = [quantile([1000] * 4, share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx(
        [lowest + (highest - lowest) * part for part in (0.125, 0.375, 0.625, 0.875)], abs=0.01
    )


def test_a_step_of_the_course_begins_at_its_minute() -> None:
    course = course_of(5, [(29_455_200, 3, 0), (29_455_210, 0, 1)])
    assert course.step == timedelta(minutes=5)
    assert [(one.begins_at, one.delivered, one.failed) for one in course.steps] == [
        (datetime(2026, 1, 2, 0, 0, tzinfo=UTC), 3, 0),
        (datetime(2026, 1, 2, 0, 10, tzinfo=UTC), 0, 1),
    ]
