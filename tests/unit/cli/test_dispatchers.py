"""`mailing dispatchers` and `mailing log` on a service that answers as it is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from mailing import MailingClient, MailingError
from mailing.cli import main
from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from mailing.v1.dispatch_pb2 import DispatchSettings, EndpointStatus, Replica
from mailing.v1.log_pb2 import LogEntry
from tests.unit.cli.service import Stoppable

SETTINGS = DispatchSettings(
    poll_min=Duration(nanos=10_000_000),
    poll_max=Duration(seconds=5),
    recheck_min=Duration(seconds=1),
    recheck_max=Duration(seconds=60),
    max_concurrency=64,
)
REPLICA = Replica(
    id="5f1f5f3c-64a4-4d35-8cf6-0a4f5d0d6d7d",
    host="here",
    process_id=77,
    in_flight=3,
    concurrency_limit=64,
    backlog=1997,
    rate_per_second=1234.5,
    latency_p50=Duration(nanos=2_000_000),
    endpoints=[EndpointStatus(name="default", breaker=EndpointStatus.BREAKER_OPEN)],
    mailing_ids=[4, 7],
)


def entry(text: str) -> LogEntry:
    return LogEntry(level=LogEntry.LEVEL_WARNING, event="attempt.failed", text=text, mailing_id=7, client_id=5)


class Admin(Stoppable):
    """Goes away once in the middle of each stream."""

    def __init__(self) -> None:
        self.settings = DispatchSettings()
        self.settings.CopyFrom(SETTINGS)
        self.updates: list[pb.UpdateDispatchSettingsRequest] = []
        self.reads: list[pb.WatchLogRequest] = []
        self.watches = 0

    def GetDispatch(self, request: pb.GetDispatchRequest, context: grpc.ServicerContext) -> pb.GetDispatchResponse:
        return pb.GetDispatchResponse(replicas=[REPLICA], settings=self.settings)

    def WatchDispatch(
        self, request: pb.WatchDispatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchDispatchResponse]:
        self.watches += 1
        yield pb.WatchDispatchResponse(replicas=[REPLICA] * self.watches)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    def UpdateDispatchSettings(
        self, request: pb.UpdateDispatchSettingsRequest, context: grpc.ServicerContext
    ) -> pb.UpdateDispatchSettingsResponse:
        self.updates.append(request)
        return pb.UpdateDispatchSettingsResponse(settings=self.settings)

    def WatchLog(self, request: pb.WatchLogRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchLogResponse]:
        self.reads.append(request)
        if not request.resume_token:
            yield pb.WatchLogResponse(entries=[entry("one"), entry("two\x1b[31m")], resume_token="t2")
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        yield pb.WatchLogResponse(entries=[entry("three")], resume_token="t3")
        yield pb.WatchLogResponse(resume_token="t4", checkpoint=True)
        yield pb.WatchLogResponse(entries=[entry("live")], resume_token="t5")
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "over")


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    # The methods that no test calls are left out.
    servicer = Admin()  # type: ignore[abstract]
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        add_AdminServiceServicer_to_server(servicer, server)
        monkeypatch.setenv("MAILING_ADDRESS", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        yield servicer
        server.stop(None).wait()


@pytest.fixture
def client(admin: Admin) -> Iterator[MailingClient]:
    with MailingClient.connect(os.environ["MAILING_ADDRESS"]) as client:
        yield client


def test_replicas_are_listed(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dispatchers", "list", "--wide"]) == 0
    out = capsys.readouterr().out
    for shown in ("here:77", "3", "64", "1,997", "1,234", "2 ms", "default open", "2"):
        assert shown in out
    admin.settings.paused = True
    assert main(["dispatchers", "list"]) == 0
    assert "All sending is stopped" in capsys.readouterr().err
    assert main(["dispatchers", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["replicas"][0]["mailing_ids"] == [4, 7]
    assert document["settings"]["paused"] is True


def test_settings_are_shown_and_changed(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dispatchers", "settings"]) == 0
    assert not admin.updates
    assert "10 ms" in capsys.readouterr().out
    assert (
        main(["dispatchers", "settings", "--poll-max", "2s", "--max-concurrency", "9", "--reset", "recheck-min"]) == 0
    )
    (update,) = admin.updates
    assert update.settings == DispatchSettings(poll_max=Duration(seconds=2), max_concurrency=9)
    assert sorted(update.update_mask.paths) == ["max_concurrency", "poll_max", "recheck_min"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--poll-min", "soon"], "soon"),
        (["--reset", "speed"], "speed"),
        (["--reset", "poll_min", "--poll-min", "1s"], "poll_min is also given"),
    ],
)
def test_bad_settings_are_refused_before_any_call(
    admin: Admin, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["dispatchers", "settings", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not admin.updates


def test_the_former_names_are_understood(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dispatch", "replicas"]) == 0
    assert "here:77" in capsys.readouterr().out
    assert main(["dispatchers", "--help"]) == 0
    assert "replicas" not in capsys.readouterr().out.replace("all replicas", "")


def test_the_emergency_stop_and_back(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dispatchers", "pause"]) == 0
    assert "stopped: nothing is sent" in capsys.readouterr().out
    assert admin.settings.paused
    assert main(["dispatchers", "resume"]) == 0
    assert "sending" in capsys.readouterr().out
    assert not admin.settings.paused


def test_the_log_is_printed_to_its_end_across_an_absence(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "--mailing-id", "7", "--level", "warning"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("attempt.failed", 1)[1].strip() for line in lines] == [
        "one (mailing 7, client 5)",
        "two\\x1b[31m (mailing 7, client 5)",
        "three (mailing 7, client 5)",
    ]
    first, second = admin.reads
    assert (first.mailing_id, first.level, second.resume_token) == (7, LogEntry.LEVEL_WARNING, "t2")


def test_the_log_is_followed_on_demand(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "--follow", "--json", "--limit", "4"]) == 0
    texts = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert texts == ["one", "two\x1b[31m", "three", "live"]


def test_a_watch_of_the_log_resumes_by_itself_and_knows_where_it_is(admin: Admin, client: MailingClient) -> None:
    watch = client.watch_log()
    assert [next(watch).text for _ in range(4)] == ["one", "two\x1b[31m", "three", "live"]
    with pytest.raises(MailingError, match="over"):
        next(watch)
    assert watch.resume_token == "t5"


def test_a_watch_of_replicas_goes_on_when_the_stream_is_cut(admin: Admin, client: MailingClient) -> None:
    states = client.watch_dispatch(min_interval=0.1)
    assert [len(next(states).replicas) for _ in range(3)] == [1, 2, 3]
