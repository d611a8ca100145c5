"""Reports → their messages."""

from __future__ import annotations

from datetime import timedelta

from mailing.v1 import message_pb2
from mailing.v1.mailing_service_pb2 import GetMailingReportResponse as Response
from server.api.encoding.mailings import mailing_message
from server.api.encoding.wellknown import duration, timestamp
from server.domain.reports import LatencyBin, Report, StatusCount, Step, latency_quantile


def report_response(report: Report) -> Response:
    """Return a report as the answer of GetMailingReport."""
    return Response(
        mailing=mailing_message(report.mailing),
        statuses=map(_status_count, report.statuses),
        reasons=[
            Response.ReasonCount(reason=message_pb2.Message.Reason.ValueType(reason), count=count)
            for reason, count in report.reasons
        ],
        attempts=[Response.AttemptsCount(attempts=attempts, count=count) for attempts, count in report.attempts],
        latency_p50=duration(latency_quantile(report.latencies, 0.50)),
        latency_p90=duration(latency_quantile(report.latencies, 0.90)),
        latency_p99=duration(latency_quantile(report.latencies, 0.99)),
        minutes=map(_minute_count, report.course.steps),
        step=duration(report.course.step),
        latencies=map(_latency_count, report.latencies),
        receipts=[
            Response.ReceiptCount(
                receipt=message_pb2.Message.Receipt.ValueType(one.receipt), code=one.code, count=one.messages
            )
            for one in report.receipts
        ],
    )


def _status_count(one: StatusCount) -> Response.StatusCount:
    return Response.StatusCount(
        status=message_pb2.Message.Status.ValueType(one.status),
        count=one.count,
        first_time=timestamp(one.first_at),
        last_time=timestamp(one.last_at),
    )


def _minute_count(one: Step) -> Response.MinuteCount:
    return Response.MinuteCount(time=timestamp(one.begins_at), delivered=one.delivered, failed=one.failed)


def _latency_count(one: LatencyBin) -> Response.LatencyCount:
    return Response.LatencyCount(
        lowest=duration(timedelta(milliseconds=one.lowest)),
        highest=duration(timedelta(milliseconds=one.highest)),
        count=one.count,
    )
