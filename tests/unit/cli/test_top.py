"""`mailing top` against a service with real sockets: on a terminal, as lines, as documents."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from mailing.cli import main
from mailing.cli.terminal.rates import RateHistory, length, rate, span, sparkline
from mailing.cli.terminal.tables import short_moment
from mailing.cli.terminal.top_view import Snapshot, TopView
from mailing.v1 import admin_service_pb2 as ads
from mailing.v1 import mailing_service_pb2 as ms
from mailing.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from mailing.v1.dispatch_pb2 import DispatchSettings, EndpointStatus, Replica
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2_grpc import MailingServiceServicer, add_MailingServiceServicer_to_server
from tests.support.terminal import terminal
from tests.unit.cli.service import Stoppable, progress

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def replica(number: int = 1, **fields: object) -> Replica:
    status = EndpointStatus(name="default", breaker=EndpointStatus.BREAKER_CLOSED, in_flight=7, concurrency_limit=64)
    return Replica(
        host=f"host{number}",
        process_id=4242,
        in_flight=7,
        rate_per_second=1250,
        latency_p99=Duration(nanos=12_000_000),
        poll_interval=Duration(nanos=10_000_000),
        poll_reason="work",
        endpoints=[status],
        **fields,  # type: ignore[arg-type]
    )


class Admin(Stoppable):
    def __init__(self) -> None:
        self.settings = DispatchSettings()
        self.stopped = Event()

    def WatchDispatch(
        self, request: ads.WatchDispatchRequest, context: grpc.ServicerContext
    ) -> Iterator[ads.WatchDispatchResponse]:
        while context.is_active() and not self.stopped.is_set():
            yield ads.WatchDispatchResponse(replicas=[replica()], settings=self.settings)
            self.stopped.wait(0.05)


class Mailings(MailingServiceServicer):
    def __init__(self) -> None:
        self.listed = {number: progress(Mailing.STATE_RUNNING, 1000, delivered=number) for number in (7, 8)}
        for number, mailing in self.listed.items():
            mailing.id, mailing.title = number, f"Title {number}"

    def ListMailings(self, request: ms.ListMailingsRequest, context: grpc.ServicerContext) -> ms.ListMailingsResponse:
        return ms.ListMailingsResponse(mailings=self.listed.values())

    def PauseMailing(self, request: ms.PauseMailingRequest, context: grpc.ServicerContext) -> ms.PauseMailingResponse:
        self.listed[request.mailing_id].state = Mailing.STATE_PAUSED
        return ms.PauseMailingResponse(mailing=self.listed[request.mailing_id])

    def ResumeMailing(
        self, request: ms.ResumeMailingRequest, context: grpc.ServicerContext
    ) -> ms.ResumeMailingResponse:
        self.listed[request.mailing_id].state = Mailing.STATE_RUNNING
        return ms.ResumeMailingResponse(mailing=self.listed[request.mailing_id])


@dataclass
class Service:
    address: str
    admin: Admin
    mailings: Mailings


def serving(with_admin: bool) -> Iterator[Service]:
    admin, mailings = Admin(), Mailings()  # type: ignore[abstract]
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        if with_admin:
            add_AdminServiceServicer_to_server(admin, server)
        add_MailingServiceServicer_to_server(mailings, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield Service(address, admin, mailings)
        admin.stopped.set()
        server.stop(None).wait()


@pytest.fixture
def service() -> Iterator[Service]:
    yield from serving(with_admin=True)


@pytest.fixture
def older_service() -> Iterator[Service]:
    yield from serving(with_admin=False)


@posix
def test_keys_pause_and_resume_the_chosen_mailing(service: Service) -> None:
    """Several keys typed at once are several keys: the mailing below the first one is the one paused."""
    with terminal("top", address=service.address) as screen:
        screen.shows("Title 8")
        screen.shows("host1:4242")
        screen.type("\x1b[Bp")
        screen.shows("pause mailing 7 'Title 7'?")
        assert service.mailings.listed[7].state == Mailing.STATE_RUNNING
        screen.type("y")
        screen.shows("mailing 7 is paused")
        assert service.mailings.listed[7].state == Mailing.STATE_PAUSED
        assert service.mailings.listed[8].state == Mailing.STATE_RUNNING
        screen.type("p")
        screen.shows("mailing 7 is resumed")
        assert service.mailings.listed[7].state == Mailing.STATE_RUNNING
        screen.type("q")
        assert screen.ended() == 0


@posix
def test_a_question_that_is_not_answered_with_yes_pauses_nothing(service: Service) -> None:
    with terminal("top", address=service.address) as screen:
        screen.shows("host1:4242")
        screen.type("p")
        screen.shows("pause mailing 8")
        screen.type("q")
        screen.shows("? help")
        assert service.mailings.listed[8].state == Mailing.STATE_RUNNING
        screen.type("q")
        assert screen.ended() == 0


@posix
def test_a_question_mark_explains_keys_and_columns(service: Service) -> None:
    with terminal("top", address=service.address) as screen:
        screen.shows("host1:4242")
        screen.type("?")
        screen.shows("pause the chosen mailing")
        screen.shows("BREAKER")
        screen.type("q")
        screen.shows("Title 8")


@posix
def test_all_sending_is_stopped_only_when_asked_twice(service: Service) -> None:
    with terminal("top", address=service.address) as screen:
        screen.shows("host1:4242")
        screen.type("P")
        screen.shows("stop all sending")
        screen.type("n")
        screen.shows("? help")
        assert not service.admin.settings.paused
        screen.type("Py")
        screen.shows("ALL SENDING IS STOPPED")
        assert service.admin.settings.paused
        screen.type("P")
        screen.shows("sending is resumed")
        assert not service.admin.settings.paused


@posix
def test_a_service_without_dispatchers_to_show_shows_its_mailings(older_service: Service) -> None:
    with terminal("top", address=older_service.address) as screen:
        screen.shows("Title 8")
        screen.shows("this service does not show its dispatchers")
        screen.type("P")
        screen.shows("this service does not show its dispatchers")
        screen.type("q")
        assert screen.ended() == 0


def test_without_a_terminal_there_is_a_line_per_update(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailing.cli.commands.top.INTERVAL", 0.2)
    assert main(["top", "--updates", "2", "--address", service.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "1,250/s, 1 dispatchers, 7 in flight, 2 mailings running, 1,985 pending" in lines[-1]


def test_json_is_a_document_per_update(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailing.cli.commands.top.INTERVAL", 0.2)
    assert main(["top", "--updates", "2", "--json", "--address", service.address]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in documents[1]["mailings"]] == [8, 7]
    assert documents[1]["dispatch"]["replicas"][0]["in_flight"] == 7


def test_whatever_there_is_fits_80_by_24_and_steers_no_terminal() -> None:
    hostile = "\x1b[31mred\nline " * 20
    replicas = [replica(number, concurrency_limit=100_000, backlog=10**9) for number in range(20)]
    for one in replicas:
        one.endpoints[0].last_error = hostile
        one.endpoints.extend(EndpointStatus(name=f"endpoint with a long name {number}") for number in range(9))
    dispatch = ads.WatchDispatchResponse(replicas=replicas, settings=DispatchSettings(paused=True))
    mailings = [Mailing(id=10**6 + number, title=hostile) for number in range(50)]
    output = io.StringIO()
    console = Console(file=output, width=80, height=24)
    console.print(TopView(console, "127.0.0.1:50051", True).draw(Snapshot(dispatch, mailings), mailings[40].id, ""))
    lines = output.getvalue().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in output.getvalue()
    assert f"> {mailings[40].id}" in output.getvalue()
    assert "and 14 more" in output.getvalue()


def test_figures_are_short() -> None:
    assert sparkline([0, 1, 2, 4]) == "▁▃▅█"
    assert sparkline([0, 0], plain=True) == "__"
    assert (rate(0), rate(2.5), rate(12345.6)) == ("0", "2.5", "12,346")
    assert (span(5), span(3725), span(-1)) == ("0:05", "1:02:05", "0:00")
    assert (length(0), length(28_800), length(93_784)) == ("0 s", "8 h", "1 d 2 h 3 min 4 s")


@pytest.mark.parametrize(("days", "form"), [(0, "%H:%M:%S"), (None, "%m-%d %H:%M"), (800, "%Y-%m-%d")])
def test_a_moment_of_another_year_has_its_year(days: int | None, form: str) -> None:
    """Fails for 01-01 09:00 of a mailing that starts in five years."""
    now = datetime.now().astimezone()
    other = now.replace(month=6 if now.month != 6 else 7, day=15)
    moment = other if days is None else now + timedelta(days=days)
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    assert short_moment(stamp) == f"{moment.astimezone():{form}}"


def test_a_rate_keeps_its_place_in_time() -> None:
    now = [100.0]
    history = RateHistory(length=4, clock=lambda: now[0])
    for at, value in ((100.0, 1), (100.5, 2), (103.0, 3), (104.0, 4)):
        now[0] = at
        history.add(value)
    assert history.values() == [2, 2, 3, 4]
