"""Callers with a low scope who want much take nothing from the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mailing import MailingClient, MailingError
from mailing.v1.client_pb2 import Client, ClientFilter
from mailing.v1.client_service_pb2 import ExportClientsRequest, ImportClientsRequest, ListClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing
from server.auth.tokens_file import new_token, token_line
from tests.faults import http2
from tests.faults.conftest import Service, StartService
from tests.faults.victims import MIB, attacked, memory, slowest

CLIENTS = 60_000


@pytest.fixture
def service(start_service: StartService, tmp_path: Path) -> Service:
    """Start a service with clients and a mailing, whose own client is one principal and `greedy` another."""
    own, greedy = new_token(), new_token()
    (tmp_path / "tokens").write_text(f"{token_line('own', own, ['all'])}\n{token_line('greedy', greedy, ['all'])}\n")
    started = start_service(MAILING_TOKENS_FILE=str(tmp_path / "tokens"))
    started.client.close()
    started.client = MailingClient.connect(started.address, token=own)
    started.client.create_mailing(Mailing(text="Hello"))
    started.greedy = greedy  # type: ignore[attr-defined]
    return started


@contextmanager
def greedy_of(service: Service) -> Iterator[MailingClient]:
    with closing(MailingClient.connect(service.address, token=service.greedy)) as client:  # type: ignore[attr-defined]
        yield client


@contextmanager
def greedy_stub(service: Service, *options: tuple[str, int]) -> Iterator[tuple[Any, Any]]:
    """Lend the stub of clients and the metadata of the greedy one."""
    with grpc.insecure_channel(service.address, [("grpc.use_local_subchannel_pool", 1), *options]) as channel:
        yield ClientServiceStub(channel), (("authorization", f"Bearer {service.greedy}"),)  # type: ignore[attr-defined]


def some_clients(first: int, count: int, **fields: Any) -> Iterator[Client]:
    return (Client(phone=str(79000000000 + first + number), timezone="UTC", **fields) for number in range(count))


def test_twenty_scans_at_once_leave_connections_to_others(service: Service) -> None:
    """Fails, by calls that find no connection, without a share of the pool."""
    service.client.import_clients(some_clients(0, CLIENTS))
    quiet, over, refusals = slowest(service), threading.Event(), set[str]()
    nobody = ClientFilter(attributes={"nobody": "has this"})

    def scan(client: MailingClient) -> None:
        while not over.is_set():
            try:
                assert list(client.list_clients(nobody)) == []
            except MailingError as error:
                refusals.add(error.reason)

    with greedy_of(service) as greedy, ThreadPoolExecutor(20) as threads:
        scans = [threads.submit(scan, greedy) for _ in range(20)]
        try:
            took = attacked(service)
            assert next(iter(service.client.export_clients(nobody)), None) is None
        finally:
            over.set()
        for one in scans:
            one.result()
    assert took <= max(2 * quiet, 0.2)
    assert refusals <= {"TOO_MANY_WAITING", "LIMIT_REACHED"}


def test_imports_that_say_nothing_block_no_other(service: Service) -> None:
    """Fails when an import holds its turn or a connection while it waits for its caller."""
    over = threading.Event()

    def silent() -> Iterator[ImportClientsRequest]:
        yield ImportClientsRequest(clients=[*some_clients(0, 1)])
        over.wait()

    with greedy_stub(service) as (stub, metadata):
        imports = [stub.ImportClients.future(silent(), metadata=metadata) for _ in range(40)]
        try:
            counts = [service.client.import_clients(some_clients(100 * n, 50)) for n in range(1, 5)]
        finally:
            over.set()
        assert [one.created for one in counts] == [50] * 4
        assert {one.exception() for one in imports} == {None}


def test_heavy_rows_are_not_held(service: Service) -> None:
    """Fails, by hundreds of MiB, when rows are gathered by number instead of by bytes."""
    heavy = {f"name{number}": "x" * 1000 for number in range(64)}
    before, most = memory(service), 0

    def rows() -> Iterator[Client]:
        nonlocal most
        for number, client in enumerate(some_clients(0, 2500, attributes=heavy)):
            if number % 250 == 0:
                most = max(most, memory(service))
            yield client

    assert service.client.import_clients(rows()).created == 2500
    assert max(most, memory(service)) - before < 96 * MIB


def test_exports_that_nobody_reads_hold_little(service: Service) -> None:
    """Fails when a piece is read by its number of rows: one of heavy clients has 16 MiB and more."""
    heavy = {f"name{number}": "x" * 1000 for number in range(64)}
    service.client.import_clients(some_clients(0, 1000, attributes=heavy))
    before = memory(service)
    with greedy_stub(service, ("grpc.http2.lookahead_bytes", 1024)) as (stub, metadata):
        exports = [stub.ExportClients(ExportClientsRequest(), metadata=metadata) for _ in range(3)]
        first = [len(next(one).clients) for one in exports]
        slowest(service)
        assert min(first) > 0
        assert memory(service) - before < 32 * MIB
        for one in exports:
            one.cancel()


def test_answers_that_nobody_reads_hold_little(start_service: StartService) -> None:
    """Fails, by 250 MiB, when a call has ended for us before its answer is sent."""
    service = start_service()
    heavy = {f"name{number}": "x" * 1000 for number in range(64)}
    service.client.import_clients(some_clients(0, 20, attributes=heavy))
    service.client.create_mailing(Mailing(text="Hello"))
    before = memory(service)
    with closing(http2.Connection(service.address)) as one:
        one.call_without_reading("/mailing.v1.ClientService/ListClients", ListClientsRequest().SerializeToString(), 250)
        slowest(service, 200)
        assert memory(service) - before < 64 * MIB
    assert len(list(service.client.list_clients())) == 20
