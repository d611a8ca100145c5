"""Callers that misuse HTTP/2 itself take nothing from the others."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from mailing.v1.client_pb2 import Client
from mailing.v1.mailing_pb2 import Mailing
from tests.faults import http2
from tests.faults.conftest import Service, StartService
from tests.faults.victims import memory
from tests.support.eventually import eventually_sync

GROWTH = 60 * 2**20
"""Bytes that the service may have more in memory after an attack, which without limits was 350 MB."""

Attack = Callable[[http2.Connection], object]

ATTACKS: dict[str, Attack] = {
    "rapid reset": lambda one: one.flood(10_000, http2.called_and_reset),
    "ping flood": lambda one: one.flood(20_000, http2.pinged),
    "settings flood": lambda one: one.flood(20_000, http2.settings_changed),
    "endless headers": lambda one: one.raw(http2.endless_headers(5_000)),
    "nothing": lambda one: None,
}


@contextmanager
def attacked(service: Service, attack: Attack, connections: int) -> Iterator[None]:
    """Attack over so many connections at once while the block runs, which begins when they are open."""
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(http2.Connection(service.address))) for _ in range(connections)]
        threads = [threading.Thread(target=attack, args=(one,)) for one in opened]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_while_it_is_attacked_and_after(start_service: StartService, name: str) -> None:
    """Rapid reset fails, by refused calls and by memory, without a limit of streams per connection."""
    service = start_service()
    service.client.create_mailing(Mailing(text="Hello"))
    before = memory(service)
    with attacked(service, ATTACKS[name], 4 if name != "nothing" else 100):
        for _ in range(50):
            assert service.client.get_mailing(1).id == 1
    for _ in range(50):
        assert service.client.get_mailing(1).id == 1
    assert memory(service) - before < GROWTH


def test_whoever_pings_too_often_is_sent_away(start_service: StartService) -> None:
    """Fails when the service puts up with any number of pings (`grpc.http2.max_ping_strikes` 0)."""
    with closing(http2.Connection(start_service().address)) as connection:
        connection.flood(50, http2.pinged)
        assert connection.is_closed()


def test_a_host_takes_no_more_than_its_connections(start_service: StartService) -> None:
    """The newest go, and other hosts do not notice; fails, by 60 that stay, without a bound per host."""
    service = start_service(MAILING_MAX_CONNECTIONS_PER_HOST="20")
    service.client.create_mailing(Mailing(text="Hello"))
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(http2.Connection(service.address))) for _ in range(60)]
        eventually_sync(lambda: sum(one.is_open() for one in opened), lambda count: count == 20, 20)
        assert [one.is_open() for one in opened] == [True] * 20 + [False] * 40
        assert service.client.get_mailing(1).id == 1
        assert stack.enter_context(closing(http2.Connection(service.address))).is_closed()


def test_idle_callers_leave_files_to_the_dispatcher_and_the_database(start_service: StartService) -> None:
    """Fails, by a mailing that does not end, when callers may take every file that may be open."""
    service = start_service(files=1024, MAILING_ENDPOINT_MAX_CONCURRENCY="64")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    service.client.import_clients(Client(phone=str(79000000000 + n), timezone="UTC") for n in range(200))
    host, _, port = service.address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(1300):
            stack.enter_context(socket.create_connection((host, int(port)), source_address=(http2.SOURCE, 0)))
        mailing = service.client.create_mailing(Mailing(text="Hello"))
        eventually_sync(lambda: service.client.get_mailing(mailing.id).progress.delivered, lambda one: one == 200)
        assert open_files(service) < 1000


def open_files(service: Service) -> int:
    return len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
