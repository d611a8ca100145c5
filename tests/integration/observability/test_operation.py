"""The admin port and health of the service as a process, its database going and coming."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from mailing.v1.admin_service_pb2 import WatchDispatchRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from server.domain.errors import DatabaseUnavailable
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database
from server.watch.change_tailer import ChangeTailer, Polling
from tests.conftest import PostgresServer
from tests.support.ledger import BUCKETS
from tests.support.processes import PATIENCE, children, children_beside, command, ended, serving
from tests.support.scrape import ADMIN, get, sampled, scrape, value

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
NO_ENDPOINT = "http://127.0.0.1:9/"


def admin_of(process: subprocess.Popen[str]) -> str:
    """Where a process says that its admin port is."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := ADMIN.search(line):
            return match[1].rstrip('"')
    raise AssertionError("it ended without an admin port")


@contextmanager
def monitored(dsn: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A service, its address, and that of its admin port."""
    wanted = {"MAILING_DSN": dsn, "MAILING_ENDPOINT_URL": NO_ENDPOINT, "MAILING_ADMIN_LISTEN": "127.0.0.1:0"}
    with serving(**(wanted | settings)) as (process, address):
        yield process, address, admin_of(process)


@contextmanager
def health_of(address: str, service: str = "") -> Iterator[Iterator[int]]:
    """The changes of a service's health as they come."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE)
        yield (answer.status for answer in call)
        call.cancel()


async def refuse(server: PostgresServer, database: str, refused: bool) -> None:
    """Let a database refuse every connection, or not any more."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS {not refused}")
        if refused:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
            )
    finally:
        await connection.close()


async def test_health_and_readiness_follow_the_database(database_dsn: str, postgres_server: PostgresServer) -> None:
    """Fails when nobody watches the database: the stream of health then ends at its deadline."""
    database = database_dsn.rpartition("/")[2].partition("?")[0]
    with (
        monitored(database_dsn) as (_, address, admin),
        health_of(address) as overall,
        health_of(address, "mailing.v1.MailingService") as mailings,
    ):
        assert (next(overall), next(mailings)) == (SERVING, SERVING)
        assert get(admin, "/readyz")[::2] == (200, "ready\n")
        await refuse(postgres_server, database, refused=True)
        try:
            assert (next(overall), next(mailings)) == (NOT_SERVING, NOT_SERVING)
            assert get(admin, "/readyz")[::2] == (503, "the database is away\n")
            assert get(admin, "/healthz")[::2] == (200, "ok\n")
            samples = scrape(admin)
            assert value(samples, "mailing_database_up") == 0
            assert "mailing_open_batches" not in {name for name, _ in samples}
        finally:
            await refuse(postgres_server, database, refused=False)
        assert (next(overall), next(mailings)) == (SERVING, SERVING)
        assert get(admin, "/readyz").status == 200
        samples = scrape(admin)
        assert value(samples, "mailing_database_up") == 1
        assert value(samples, "mailing_open_batches", endpoint="default") == 0
        assert value(samples, "mailing_database_errors_total", part="health") > 0


def test_watchers_are_counted_by_what_they_watch(database_dsn: str) -> None:
    with (
        monitored(database_dsn) as (_, address, admin),
        grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel,
    ):
        delivery, operators = DeliveryServiceStub(channel), AdminServiceStub(channel)
        calls: list[Any] = [
            delivery.WatchMessages(WatchMessagesRequest(), timeout=PATIENCE),
            operators.WatchDispatch(WatchDispatchRequest(), timeout=PATIENCE),
        ]
        for call in calls:
            next(call)
        for kind, count in {"messages": 1, "dispatch": 1, "log": 0, "mailing": 0}.items():
            assert value(scrape(admin), "mailing_watchers", kind=kind) == count
        for call in calls:
            call.cancel()
        sampled(admin, "mailing_watchers", 0, kind="messages")
        sampled(admin, "mailing_watchers", 0, kind="dispatch")


async def test_the_reader_of_the_journal_knows_how_far_it_is_behind(
    database_dsn: str, postgres_server: PostgresServer, pool: asyncpg.Pool
) -> None:
    """Fails when it does not note when it had everything."""
    database = database_dsn.rpartition("/")[2].partition("?")[0]
    tailer = ChangeTailer(ChangeFeedStore(Database(pool), BUCKETS), Polling())
    assert tailer.lag == 0
    with tailer.reading():
        await tailer.fresh()
        caught_up = tailer.lag
        await refuse(postgres_server, database, refused=True)
        try:
            with pytest.raises(DatabaseUnavailable):
                await tailer.fresh()
            with pytest.raises(DatabaseUnavailable):  # only asked after the pause of one that is away
                await tailer.fresh()
            assert tailer.lag > caught_up
            away = tailer.lag
        finally:
            await refuse(postgres_server, database, refused=False)
        await tailer.fresh()
        assert tailer.lag < away
    assert tailer.lag == 0


async def test_a_single_broken_connection_is_no_outage(database_dsn: str, postgres_server: PostgresServer) -> None:
    """Every connection breaks at once, and the next question finds a new one."""
    connection = await asyncpg.connect(postgres_server.dsn())
    with monitored(database_dsn) as (_, address, admin), health_of(address) as overall:
        assert next(overall) == SERVING
        database = database_dsn.rpartition("/")[2].partition("?")[0]
        for _ in range(3):
            await connection.execute(KILL, database)
            assert get(admin, "/readyz").status == 200
    await connection.close()


def test_it_is_not_ready_any_more_once_it_is_being_stopped(database_dsn: str) -> None:
    """A stream that its caller keeps open holds the end up for as long as this looks."""
    with monitored(database_dsn) as (process, address, _), health_of(address) as overall:
        assert next(overall) == SERVING
        process.terminate()
        assert next(overall) == NOT_SERVING


def test_both_formats_are_served_by_what_is_asked_for(database_dsn: str) -> None:
    with monitored(database_dsn) as (_, _, admin):
        plain = get(admin, "/metrics")
        assert plain.content_type.startswith("text/plain; version=0.0.4")
        wanted = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
        other = get(admin, "/metrics", Accept=wanted)
        assert other.content_type.startswith("application/openmetrics-text; version=1.0.0")
        names = {family.name for family in openmetrics_families(other.text)}  # type: ignore[no-untyped-call]
        assert names >= {"mailing_messages", "mailing_dispatchers"}
        assert get(admin, "/metrics", Accept="application/openmetrics-text;version=x").status == 200
        assert get(admin, "/metrics", Accept="text/plain;version=1.0.0;escaping=allow-utf-8").status == 200


def test_a_taken_admin_port_is_one_sentence(database_dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = ended(
            "serve", MAILING_DSN=database_dsn, MAILING_ADMIN_LISTEN=address, MAILING_ENDPOINT_URL=NO_ENDPOINT
        )
    assert result.returncode == 1
    assert re.search(rf"^Cannot listen on {address} \(MAILING_ADMIN_LISTEN\): .*in use\.$", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_no_admin_port_when_there_is_to_be_none(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn, MAILING_ADMIN_LISTEN="off") as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert "metrics and health" not in err


def test_channelz_is_served_where_it_is_set(database_dsn: str) -> None:
    everything = channelz_pb2.GetServersRequest()
    with monitored(database_dsn, MAILING_CHANNELZ_LISTEN="127.0.0.1:0") as (process, address, _):
        assert process.stderr is not None
        port = next(match[1] for line in process.stderr if (match := re.search(r"channelz is on port (\d+)", line)))
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            found = channelz_pb2_grpc.ChannelzStub(channel).GetServers(everything, timeout=PATIENCE)
        assert len(found.server) == 2
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channelz_pb2_grpc.ChannelzStub(channel).GetServers(everything, timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_channelz_knows_no_callers_and_stays_on_loopback() -> None:
    result = ended("serve", MAILING_CHANNELZ_LISTEN="0.0.0.0:0")
    assert (result.returncode, result.stderr) == (2, "MAILING_CHANNELZ_LISTEN should be on loopback, not 0.0.0.0:0.\n")


def test_metrics_of_dispatcher_processes_outlive_them(database_dsn: str) -> None:
    """The database's errors are what these processes count without any mailing; see tests/e2e for the others."""
    with monitored(database_dsn, MAILING_DISPATCHERS="2") as (process, _, admin):
        sampled(admin, "mailing_dispatchers", 2)
        first = children(process.pid)
        os.kill(first[0], signal.SIGKILL)
        children_beside(process.pid, 2, known=first[:1])
        sampled(admin, "mailing_dispatcher_restarts_total", 1)
        sampled(admin, "mailing_dispatchers", 2)
        samples = scrape(admin)
        polls = [labels for name, labels in samples if name == "mailing_dispatcher_poll_interval_seconds"]
        assert {dict(labels)["dispatcher"] for labels in polls} == {"1", "2"}


def test_a_dispatcher_alone_has_an_admin_port_of_its_own(database_dsn: str) -> None:
    words, environment = command(
        "dispatch", MAILING_DSN=database_dsn, MAILING_ENDPOINT_URL=NO_ENDPOINT, MAILING_ADMIN_LISTEN="127.0.0.1:0"
    )
    process = subprocess.Popen(words, env=environment, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    try:
        admin = admin_of(process)
        assert get(admin, "/readyz").status == 200
        assert value(scrape(admin), "mailing_dispatchers") == 1
    finally:
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
