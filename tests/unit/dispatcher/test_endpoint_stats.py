"""What a replica tells of its requests: rate, failures, latencies, the last error."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatcher.endpoint_stats import SAMPLES, WINDOW, EndpointStats, summarize
from dispatcher.model.outcomes import Failure, Outcome, Settled
from dispatcher.model.states import ErrorClass, Reason, Status
from tests.unit.dispatcher.batches import settlement


def delivered(duration_ms: int, count: int = 1) -> list[Settled]:
    return [(n, 0, Outcome(Status.DELIVERED, Reason.NONE, 1, 200, None, duration_ms, None, None)) for n in range(count)]


def failed(status: int | None, code: int | None = None, error: ErrorClass = ErrorClass.SERVER) -> list[Settled]:
    failure = Failure(datetime.now(UTC), error, "")
    return [(1, 0, Outcome(Status.FAILED, Reason.REFUSED, 1, status, code, 5, None, failure))]


def test_without_requests_there_is_nothing_to_tell() -> None:
    assert summarize(0.0, [EndpointStats()]) == (0.0, 0.0, None, None, "")


def test_rate_and_failures_are_those_of_the_last_seconds() -> None:
    stats = EndpointStats()
    stats.note(100.0, settlement(delivered(1, 300)))
    stats.note(101.0, settlement([*delivered(1, 3), *failed(503)]))
    early, late = summarize(101.0, [stats]), summarize(100.5 + WINDOW, [stats])
    assert early.rate == pytest.approx(303 / WINDOW)
    assert early.failure_ratio == pytest.approx(1 / 304)
    assert late.rate == pytest.approx(3 / WINDOW)
    assert late.failure_ratio == pytest.approx(1 / 4)
    assert summarize(200.0, [stats])[:2] == (0.0, 0.0)


def test_what_was_not_sent_does_not_count() -> None:
    stats = EndpointStats()
    stats.note(1.0, settlement([(1, 0, Outcome(Status.SKIPPED, Reason.OPTED_OUT, 0, None, None, None, None, None))]))
    assert summarize(1.0, [stats]) == (0.0, 0.0, None, None, "")


def test_quantiles_are_those_of_the_last_requests() -> None:
    stats = EndpointStats()
    for _ in range(2 * SAMPLES):
        stats.note(1.0, settlement(delivered(900)))
    for n in range(SAMPLES):
        stats.note(1.0, settlement(delivered(n // 10)))
    found = summarize(1.0, [stats])
    assert (found.latency_p50, found.latency_p99) == (0.049, 0.098)


def test_a_large_settle_is_sampled_evenly() -> None:
    stats = EndpointStats()
    stats.note(1.0, settlement([*delivered(1, 400), *delivered(100, 100)]))
    found = summarize(1.0, [stats])
    assert (found.latency_p50, found.latency_p99) == (0.001, 0.1)
    assert len(stats.latencies) == 50


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (failed(503), "gateway error (HTTP 503)"),
        (failed(None, error=ErrorClass.TIMEOUT), "no answer in time"),
        (failed(200, 7, ErrorClass.REJECTED), "refused (HTTP 200, code 7)"),
    ],
)
def test_the_last_error_is_told_in_a_few_words(outcome: list[Settled], words: str) -> None:
    stats = EndpointStats()
    stats.note(1.0, settlement([*failed(418), *outcome, *delivered(1)]))
    stats.note(2.0, settlement(delivered(1)))
    assert summarize(2.0, [stats]).last_error == words


def test_several_endpoints_are_told_together() -> None:
    one, other = EndpointStats(), EndpointStats()
    one.note(1.0, settlement(delivered(10, 5)))
    other.note(1.0, settlement(failed(503)))
    found = summarize(1.0, [one, other])
    assert found.failure_ratio == pytest.approx(1 / 6)
    assert (found.rate, found.last_error) == (1.0, "gateway error (HTTP 503)")
