"""`mailing watch` and `mailing tail` on a service that has streams."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from mailing.cli import main
from mailing.v1.delivery_service_pb2 import (
    MessageChange,
    WatchMailingRequest,
    WatchMailingResponse,
    WatchMessagesRequest,
    WatchMessagesResponse,
)
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceServicer, add_DeliveryServiceServicer_to_server
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, GetMailingReportResponse
from mailing.v1.mailing_service_pb2_grpc import MailingServiceServicer, add_MailingServiceServicer_to_server
from mailing.v1.message_pb2 import Message
from tests.support.terminal import terminal
from tests.unit.cli.service import progress

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


class Delivery(DeliveryServiceServicer):
    """Goes away once in the middle."""

    def __init__(self) -> None:
        self.requests: list[WatchMessagesRequest] = []
        self.calls = 0

    def WatchMailing(
        self, request: WatchMailingRequest, context: grpc.ServicerContext
    ) -> Iterator[WatchMailingResponse]:
        self.calls += 1
        if self.calls == 1:
            yield WatchMailingResponse(mailing=progress(Mailing.STATE_RUNNING, 10, delivered=4, failed=3))
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        yield WatchMailingResponse(mailing=progress(Mailing.STATE_COMPLETED, 10, delivered=7, failed=3))

    def WatchMessages(
        self, request: WatchMessagesRequest, context: grpc.ServicerContext
    ) -> Iterator[WatchMessagesResponse]:
        self.requests.append(request)
        failed = MessageChange(message_id=(7 << 32) + 5, mailing_id=7, client_id=5, status=Message.STATUS_FAILED)
        yield WatchMessagesResponse(changes=[failed, failed], resume_token="t")


class Reports(MailingServiceServicer):
    def GetMailingReport(
        self, request: GetMailingReportRequest, context: grpc.ServicerContext
    ) -> GetMailingReportResponse:
        count = GetMailingReportResponse.ReasonCount
        reasons = [
            count(reason=Message.REASON_REFUSED, count=1),
            count(reason=Message.REASON_ATTEMPTS_EXHAUSTED, count=2),
        ]
        return GetMailingReportResponse(reasons=reasons)


@pytest.fixture
def delivery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Delivery]:
    servicer = Delivery()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        add_DeliveryServiceServicer_to_server(servicer, server)
        add_MailingServiceServicer_to_server(Reports(), server)  # type: ignore[abstract]
        monkeypatch.setenv("MAILING_ADDRESS", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        yield servicer
        server.stop(None).wait()


def test_watch_goes_on_when_the_stream_is_cut(delivery: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "7"]) == 4
    assert "running: 4 of 10 delivered, 3 undelivered" in capsys.readouterr().out
    assert delivery.calls == 2


@posix
def test_a_terminal_shows_progress_rate_and_reasons(delivery: Delivery) -> None:
    with terminal("watch", "7", address=os.environ["MAILING_ADDRESS"]) as screen:
        for text in ("Mailing 7 running", "70.0%", "4 of 10 delivered", "0/s  ▁", "3 failed", "2  all attempts failed"):
            screen.shows(text)
        screen.shows("1  refused")
        screen.shows("3 of 10 messages were not delivered")
        assert screen.ended() == 4


@posix
def test_on_a_terminal_tail_fits_80_columns(delivery: Delivery) -> None:
    with terminal("tail", "--limit", "1", address=os.environ["MAILING_ADDRESS"]) as screen:
        screen.shows(f"failed     message {(7 << 32) + 5}  mailing 7  client 5\r\n")
        assert screen.ended() == 0


def test_tail_prints_a_line_per_change(delivery: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--mailing-id", "7", "--status", "failed", "--from-start", "--limit", "2"]) == 0
    line = f"failed     message {(7 << 32) + 5}  mailing 7  client 5"
    assert [one.strip() for one in capsys.readouterr().out.splitlines()] == [line, line]
    (request,) = delivery.requests
    assert (request.mailing_id, list(request.statuses), request.from_start) == (7, [3], True)


def test_tail_prints_documents_on_demand(delivery: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--json", "--limit", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["client_id"], document["status"]) == (5, "STATUS_FAILED")
