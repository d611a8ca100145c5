"""Figures are added up and travel between processes, and counters never go back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.observability.metrics import FAMILIES, Samples, ServiceCollector, Totals
from server.observability.metrics.dispatchers import HEARTBEAT
from server.observability.metrics.reports import Reports, reporting
from server.observability.metrics.samples import add, decode, encode

DELIVERED = ("default", "delivered")


def of_process(delivered: float, in_flight: float = 0) -> Samples:
    return {
        "mailing_messages_total": {DELIVERED: delivered},
        "mailing_settle_seconds": {(): [delivered, *[0] * 13, delivered / 100]},
        "mailing_dispatchers": {(): 1},
        "mailing_dispatcher_in_flight": {("0", "default"): in_flight},
    }


def samples(*sources: Samples) -> dict[tuple[str, tuple[str, ...]], float]:
    registry = CollectorRegistry()
    registry.register(ServiceCollector("1", [lambda source=source: source for source in sources]))  # type: ignore[misc]
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_process_that_died_stays_counted_and_the_next_adds_to_it() -> None:
    """Fails when `Totals.end` forgets the counters of the process."""
    totals = Totals()
    totals.report(1, of_process(10, in_flight=5))
    totals.report(2, of_process(1))
    totals.end(1, expected=False)
    assert totals.samples()["mailing_messages_total"][DELIVERED] == 11
    assert totals.samples()["mailing_dispatchers"] == {(): 1}
    assert totals.samples()["mailing_dispatcher_in_flight"] == {("2", "default"): 0}
    totals.report(1, of_process(3))
    assert totals.samples()["mailing_messages_total"][DELIVERED] == 14
    assert totals.samples()["mailing_settle_seconds"][()] == [14, *[0] * 13, pytest.approx(0.14)]
    assert totals.samples()["mailing_dispatcher_restarts_total"] == {(): 1}


def test_asking_for_totals_changes_nothing() -> None:
    totals = Totals()
    totals.report(1, of_process(10))
    totals.report(2, of_process(10))
    assert totals.samples() == totals.samples()


def test_what_a_process_wrote_last_stands_for_all_of_them() -> None:
    """Fails when health asks the database although a dispatcher beside it has just written."""
    totals, now = Totals(), time.monotonic()
    assert totals.written_at < now - 1e6
    totals.report(1, {HEARTBEAT: {("0",): 3.0}})
    totals.report(2, {HEARTBEAT: {("0",): 1.0}})
    totals.report(3, {HEARTBEAT: {}})
    assert totals.written_at == pytest.approx(now - 1.0, abs=0.5)
    totals.end(2, expected=False)
    totals.report(1, {HEARTBEAT: {("0",): 4.0}})
    assert totals.written_at == pytest.approx(now - 1.0, abs=0.5)


def test_gauges_stand_by_dispatcher_and_everything_else_is_added_up() -> None:
    totals = Totals()
    totals.report(1, of_process(10, in_flight=5))
    totals.report(2, of_process(1, in_flight=7))
    samples = totals.samples()
    assert samples["mailing_dispatcher_in_flight"] == {("1", "default"): 5, ("2", "default"): 7}
    assert samples["mailing_dispatchers"] == {(): 2}


def test_figures_come_out_of_a_line_as_they_went_in() -> None:
    samples = of_process(10, in_flight=2)
    assert decode(encode(samples)) == samples
    assert decode(b'{"mailing_of_another_release": [[["x"], 1]]}') == {}


def test_sums_leave_what_they_are_made_of_alone() -> None:
    first, second = of_process(1), of_process(2)
    total: Samples = {}
    add(total, first)
    add(total, second)
    assert first == of_process(1)
    assert second == of_process(2)


def test_a_histogram_has_every_smaller_range_in_each_range() -> None:
    found = samples({"mailing_settle_seconds": {(): [1, 2, *[0] * 11, 4, 50.5]}})
    assert found["mailing_settle_seconds_bucket", ("0.001",)] == 1
    assert found["mailing_settle_seconds_bucket", ("0.0025",)] == 3
    assert found["mailing_settle_seconds_bucket", ("+Inf",)] == found["mailing_settle_seconds_count", ()] == 7
    assert found["mailing_settle_seconds_sum", ()] == 50.5


def test_sources_are_added_up() -> None:
    api: Samples = {"mailing_database_errors_total": {("api",): 1}}
    dispatcher: Samples = {"mailing_database_errors_total": {("dispatcher",): 2}}
    found = samples(api, dispatcher, api)
    assert found["mailing_database_errors_total", ("api",)] == 2
    assert found["mailing_database_errors_total", ("dispatcher",)] == 2


def test_the_bounds_of_a_histogram_are_whatever_the_table_says() -> None:
    assert all(bool(family.bounds) is (family.kind == "histogram") for family in FAMILIES.values())
    assert all(family.name.endswith("_total") is (family.kind == "counter") for family in FAMILIES.values())


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


async def test_reports_arrive_and_the_last_one_tells_everything(pipe: tuple[int, int]) -> None:
    """What a process did right before its end is in the report that ends it."""
    told: asyncio.Queue[Samples] = asyncio.Queue()
    done = 1
    reports = Reports(os.fdopen(os.dup(pipe[0]), "rb"), told.put_nowait)
    async with asyncio.timeout(20), reporting(lambda: of_process(done), pipe[1]):
        assert await told.get() == of_process(1)
        done = 7
    reports.close()
    while not told.empty():
        last = told.get_nowait()
    assert last == of_process(7)


async def test_a_line_longer_than_the_pipe_arrives_whole_and_holds_nobody_up(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the next report begins before the rest of the last one is written."""
    monkeypatch.setattr("server.observability.metrics.reports.INTERVAL", 0.01)
    long: Samples = {"mailing_messages_total": {(f"endpoint-{n}", "delivered"): n for n in range(5000)}}
    told: asyncio.Queue[Samples] = asyncio.Queue()
    asked = asyncio.Queue[None]()

    def samples() -> Samples:
        asked.put_nowait(None)
        return long

    async with asyncio.timeout(20), reporting(samples, pipe[1]):
        for _ in range(3):  # nobody reads yet
            await asked.get()
        reports = Reports(os.fdopen(os.dup(pipe[0]), "rb"), told.put_nowait)
        for _ in range(3):
            assert await told.get() == long
    reports.close()


async def test_what_nobody_understands_is_passed_over(pipe: tuple[int, int]) -> None:
    told: list[Samples] = []
    reports = Reports(os.fdopen(os.dup(pipe[0]), "rb"), told.append)
    os.write(pipe[1], b"nonsense\n")
    os.write(pipe[1], b"[1]\n")
    reports.close()
    assert told == []
