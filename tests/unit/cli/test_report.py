"""`mailing report` against a small service: a screen for people, a document for programs."""

from __future__ import annotations

import io
import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from mailing.cli.commands.report import BAR_WIDTH, CHART_ROWS, report, slices
from mailing.cli.session import Session
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportResponse as Report
from mailing.v1.message_pb2 import Message
from tests.unit.cli.conftest import Run, Service
from tests.unit.cli.service import progress

BEGIN = 1_767_312_000


def milliseconds(count: float) -> Duration:
    return Duration(nanos=int(count * 1e6))


@pytest.fixture
def full() -> Report:
    """Return a mailing of a million with something of everything."""
    mailing = progress(Mailing.STATE_COMPLETED, 1_000_000, delivered=987_654, failed=12_000, skipped=346)
    mailing.title, mailing.progress.attempts = "Spring", 1_013_000
    first, last = Timestamp(seconds=BEGIN), Timestamp(seconds=BEGIN + 86_400 * 30)
    statuses = [(Message.STATUS_DELIVERED, 987_654), (Message.STATUS_FAILED, 12_000), (Message.STATUS_SKIPPED, 346)]
    reasons = [(Message.REASON_ATTEMPTS_EXHAUSTED, 12_000), (Message.REASON_NO_LONGER_MATCHES, 346)]
    return Report(
        mailing=mailing,
        statuses=[
            Report.StatusCount(status=status, count=count, first_time=first, last_time=last)
            for status, count in statuses
        ],
        reasons=[Report.ReasonCount(reason=reason, count=count) for reason, count in reasons],
        attempts=[Report.AttemptsCount(attempts=1, count=987_000), Report.AttemptsCount(attempts=5, count=13_000)],
        latency_p50=milliseconds(0),
        latency_p90=milliseconds(12.4),
        latency_p99=Duration(seconds=1, nanos=234_000_000),
        minutes=[
            Report.MinuteCount(time=Timestamp(seconds=BEGIN), delivered=900_000, failed=12_000),
            Report.MinuteCount(time=Timestamp(seconds=BEGIN + 120), delivered=1),
            Report.MinuteCount(time=Timestamp(seconds=BEGIN + 180), delivered=87_653),
        ],
        step=Duration(seconds=60),
        receipts=[
            Report.ReceiptCount(receipt=Message.RECEIPT_RECEIVED, count=900_000),
            Report.ReceiptCount(receipt=Message.RECEIPT_UNDELIVERED, code="30003", count=87_000),
        ],
    )


def test_a_report_shows_everything_within_80_columns(run: Run, service: Service, full: Report) -> None:
    service.mailings.report = full
    status, out, err = run("report", "7")
    assert (status, err) == (0, "")
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())
    assert "█" not in out
    words = " ".join(out.split())
    for text in (
        "Mailing 7 (Spring) is completed. 987,654 of 1,000,000 delivered, 1,013,000 attempts.",
        "delivered 987,654 98.8% 2026-01",
        "all attempts failed 12,000 97.2% ####",
        "no longer matches 346 2.8% #",
        "received 900,000",
        "undelivered 30003 87,000",
        "50% 1 ms 90% 12 ms 99% 1,234 ms",
        "minute starting",
        f"900,000 12,000 {'#' * BAR_WIDTH}",
        "87,653 0 ###",
    ):
        assert text in words, text


def test_a_terminal_gets_blocks_and_no_line_is_folded(service: Service, full: Report) -> None:
    service.mailings.report = full
    out = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, _environ={})
    report(Session(address=service.address, out=out), 7)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "█" * BAR_WIDTH in text
    assert "2026-02-01" in text
    assert len(text.splitlines()) == 2 + sum(4 + rows for rows in (3, 2, 2, 2, 3, 4))


def test_minutes_without_a_delivery_are_rows_too(run: Run, service: Service, full: Report) -> None:
    service.mailings.report = full
    rows = [line.split()[2:] for line in run("report", "7").out.splitlines() if line.strip().startswith("2026-01-0")]
    assert [row[0] for row in rows] == ["900,000", "0", "1", "87,653"]


def test_a_long_course_is_drawn_in_few_rows_that_lose_nothing() -> None:
    moments = [(BEGIN + 300 * n, n, 1) for n in range(0, 2000, 3)]
    length, rows = slices(moments, 300)
    assert length % 300 == 0
    assert len(rows) <= CHART_ROWS
    assert sum(row.delivered for row in rows) == sum(n for _, n, _ in moments)
    assert sum(row.failed for row in rows) == len(moments)
    assert slices([(BEGIN, 5, 0)], 60) == (60, [(BEGIN, 5, 0)])


def test_an_empty_report_is_one_sentence(run: Run, service: Service) -> None:
    service.mailings.report = Report(mailing=progress(Mailing.STATE_SCHEDULED, 0), step=Duration(seconds=60))
    out = run("report", "7").out
    assert out == "Mailing 7 is scheduled.\n0 of 0 delivered, 0 attempts.\n"


def test_programs_get_one_document(run: Run, service: Service, full: Report) -> None:
    service.mailings.report = full
    document = json.loads(run("report", "7", "--json").out)
    assert document["mailing"]["progress"]["total"] == 1_000_000
    assert document["statuses"][0]["status"] == "STATUS_DELIVERED"
    assert document["reasons"][0] == {"reason": "REASON_ATTEMPTS_EXHAUSTED", "count": 12_000}
    assert document["attempts"] == [{"attempts": 1, "count": 987_000}, {"attempts": 5, "count": 13_000}]
    assert (document["latency_p99"], document["step"]) == ("1.234s", "60s")
    assert document["minutes"][1] == {"time": "2026-01-02T00:02:00Z", "delivered": 1, "failed": 0}


def test_an_unknown_mailing_is_a_sentence(run: Run) -> None:
    status, out, err = run("report", "8")
    assert (status, out) == (1, "")
    assert "There is no mailing 8." in err
