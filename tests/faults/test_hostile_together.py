"""Several attacks at once: the service answers, delivers, and forgets them."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from mailing import MailingClient, MailingError
from mailing.v1.client_pb2 import Client, ClientFilter
from mailing.v1.client_service_pb2 import ImportClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing
from tests.faults import http2
from tests.faults.conftest import Service, StartService
from tests.faults.victims import MIB, attacked, memory, slowest
from tests.support.eventually import eventually_sync

SECONDS = 8.0
LONG = float(os.environ.get("MAILING_ATTACK_SECONDS", "0"))
"""Seconds of the long form, which `make attacks` runs where nothing else does."""

RATE = 200
"""Messages a second of the mailing that is delivered under the long form."""

CHECK = "/grpc.health.v1.Health/Check"


def scan(service: Service, over: threading.Event) -> None:
    with closing(MailingClient.connect(service.address)) as client:
        while not over.is_set():
            try:
                assert list(client.list_clients(ClientFilter(attributes={"nobody": "has this"}))) == []
            except MailingError as error:
                if error.reason not in ("TOO_MANY_WAITING", "LIMIT_REACHED"):
                    raise


def never_end(service: Service, path: str, seconds: float = SECONDS) -> None:
    with closing(http2.Connection(service.address)) as one:
        one.send_bodies(path, 300, 4 * MIB, seconds)


def say_nothing(service: Service, over: threading.Event) -> None:
    def silent() -> Iterator[ImportClientsRequest]:
        yield ImportClientsRequest()
        over.wait()

    with grpc.insecure_channel(service.address) as channel:
        for one in [ClientServiceStub(channel).ImportClients.future(silent()) for _ in range(20)]:
            one.exception()


def test_all_at_once_take_little_and_end(start_service: StartService) -> None:
    """Health answers, others are quick, messages are delivered, and afterwards the memory is as it was."""
    service = start_service()
    service.client.import_clients(Client(phone=str(79000000000 + n), timezone="UTC") for n in range(20_000))
    service.client.import_clients(Client(phone=str(79100000000 + n), timezone="UTC", tag="few") for n in range(50))
    service.client.create_mailing(Mailing(text="Hello", filter=ClientFilter(tags=["nobody"])))
    quiet, before, over = slowest(service, 100), memory(service), threading.Event()
    with ThreadPoolExecutor(13) as threads:
        attacks = [threads.submit(never_end, service, path) for path in (CHECK, http2.ASKS_DATABASE)]
        attacks += [threads.submit(scan, service, over) for _ in range(10)]
        attacks.append(threads.submit(say_nothing, service, over))
        try:
            mailing = service.client.create_mailing(Mailing(text="Now", filter=ClientFilter(tags=["few"])))
            took = attacked(service)
            assert service.client.health()
            eventually_sync(lambda: service.client.get_mailing(mailing.id).progress.delivered, lambda one: one == 50)
        finally:
            over.set()
        for one in attacks:
            one.result(timeout=60)
    assert took <= max(4 * quiet, 0.5)
    eventually_sync(lambda: memory(service) - before, lambda more: more < 64 * MIB, 60)


@pytest.mark.skipif(not LONG, reason="make attacks runs it, for a minute or longer")
@pytest.mark.timeout(LONG + 300)
def test_all_at_once_for_long_leave_the_others_their_share(start_service: StartService) -> None:
    """Others' p99 stays below 200 ms, a mailing keeps 0.8 of its rate, and the memory comes back."""
    service, clients = start_service("--dispatchers", "auto"), int(RATE * (LONG + 60))
    service.client.import_clients(Client(phone=str(79000000000 + n), timezone="UTC") for n in range(clients))
    service.client.create_mailing(Mailing(text="Hello", filter=ClientFilter(tags=["nobody"])))
    quiet, before, over = slowest(service, 200), memory(service), threading.Event()
    mailing = service.client.create_mailing(Mailing(text="Now", max_rate=RATE)).id
    eventually_sync(lambda: delivered(service, mailing), lambda count: count > RATE)
    with ThreadPoolExecutor(13) as threads:
        attacks = [threads.submit(never_end, service, path, LONG) for path in (CHECK, http2.ASKS_DATABASE)]
        attacks += [threads.submit(scan, service, over) for _ in range(10)]
        attacks.append(threads.submit(say_nothing, service, over))
        began, first, took = time.monotonic(), delivered(service, mailing), list[float]()
        while time.monotonic() < began + LONG:
            called = time.monotonic()
            service.client.get_mailing(mailing)
            took.append(time.monotonic() - called)
            assert service.client.health()
            time.sleep(0.02)
        share = (delivered(service, mailing) - first) / (RATE * (time.monotonic() - began))
        over.set()
        for one in attacks:
            one.result(timeout=60)
    p99 = statistics.quantiles(took, n=100)[98]
    print(f"{len(took)} calls, p99 {p99 * 1e3:.0f} ms (quiet {quiet * 1e3:.0f} ms), {share:.2f} of the rate")
    eventually_sync(lambda: memory(service) - before, lambda more: more < 64 * MIB, 60)
    assert share >= 0.8
    assert p99 <= 0.2


def delivered(service: Service, mailing: int) -> int:
    """Return how many messages of a mailing were delivered."""
    return service.client.get_mailing(mailing).progress.delivered
