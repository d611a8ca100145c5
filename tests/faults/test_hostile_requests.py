"""Requests that never end, or that are larger than their method takes, hold nothing and take nothing from others."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from mailing.v1.mailing_pb2 import Mailing
from tests.faults import http2
from tests.faults.conftest import Service, StartService

MIB = 2**20
GROWTH = 64 * MIB
"""Bytes that the service may have more in memory during the attack: unbounded it was 1.2 GB."""

CHECK = "/grpc.health.v1.Health/Check"


def memory(service: Service) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{service.pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def slowest(service: Service, calls: int = 200) -> float:
    """Return the 99th percentile of the time that a caller's unary calls take, in seconds."""
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        assert service.client.get_mailing(1).id == 1
        took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[98]


@pytest.mark.parametrize("path", [CHECK, http2.ASKS_DATABASE])
def test_bodies_that_never_end_hold_little_and_others_are_served(start_service: StartService, path: str) -> None:
    """Fails, by memory, when a method's request is read without a place, and when a window grows unread."""
    service = start_service()
    service.client.create_mailing(Mailing(text="Hello"))
    quiet, before = slowest(service), memory(service)
    with closing(http2.Connection(service.address)) as one:
        attack = Thread(target=one.send_bodies, args=(path, 300, 4 * MIB, 5.0))
        attack.start()
        attacked, most = 0.0, 0
        while attack.is_alive():
            attacked = max(attacked, slowest(service, 100))
            most = max(most, memory(service))
        attack.join()
    assert most - before < GROWTH
    assert attacked <= max(2 * quiet, 0.2)


def test_a_body_that_never_ends_is_given_up(start_service: StartService) -> None:
    """Whoever waits behind it gets its place; fails when a reader keeps its place for as long as it likes."""
    service = start_service()
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(CHECK, 40, 4 * MIB, 3.0) >= 20


def test_a_refused_call_ends_before_its_body_has_arrived(start_service: StartService, tmp_path: Path) -> None:
    """Fails when the request is read before the caller is known."""
    (tmp_path / "tokens").write_text("")
    service = start_service(MAILING_TOKENS_FILE=str(tmp_path / "tokens"))
    before = memory(service)
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(http2.ASKS_DATABASE, 300, 4 * MIB, 2.0) == 300
    assert memory(service) - before < GROWTH / 4


def test_a_body_that_says_it_is_huge_is_refused_at_once(start_service: StartService) -> None:
    service = start_service()
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(CHECK, 50, 4 * MIB, 2.0, announced=2**31) == 50
