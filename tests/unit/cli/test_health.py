"""`mailing health` tells by its exit status what grpc.health.v1 says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.unit.cli.conftest import Run

SERVICE = "mailing.v1.ClientService"


@pytest.fixture
def servicer(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[health.HealthServicer]:
    """Yield a service that knows nothing but its health, at which commands are pointed."""
    known = health.HealthServicer()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(known, server)
        monkeypatch.setenv("MAILING_ADDRESS", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        yield known
        server.stop(None).wait()


def test_a_service_that_serves_is_0(servicer: health.HealthServicer, run: Run) -> None:
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert run("health") == (0, "serving\n", "")
    assert json.loads(run("--json", "health").out) == {"serving": True}


def test_one_that_does_not_serve_is_3(servicer: health.HealthServicer, run: Run) -> None:
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    status, out, err = run("health", "--service", SERVICE)
    assert (status, out) == (3, "")
    assert "cannot answer calls now" in err
    asked = run("--json", "health", "--service", SERVICE)
    assert (asked.status, json.loads(asked.out)) == (3, {"serving": False})


def test_nobody_there_is_3(run: Run) -> None:
    status, _, err = run("health", "--address", "127.0.0.1:1", "--timeout", "1")
    assert status == 3
    assert "no service answers at 127.0.0.1:1" in err


def test_a_service_that_there_is_not_is_bad_input(servicer: health.HealthServicer, run: Run) -> None:
    status, _, err = run("health", "--service", "nonsense")
    assert status == 2
    assert "there is no service 'nonsense'" in err
