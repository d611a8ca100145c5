"""A service with real sockets and invented answers, and the command line pointed at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import grpc
import pytest

from mailing.cli import main
from mailing.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from mailing.v1.client_service_pb2_grpc import add_ClientServiceServicer_to_server
from mailing.v1.mailing_service_pb2_grpc import add_MailingServiceServicer_to_server
from mailing.v1.message_service_pb2_grpc import add_MessageServiceServicer_to_server
from tests.unit.cli.service import Admin, Clients, Mailings, Messages


@dataclass(slots=True)
class Service:
    """A running server and what its servicers know."""

    address: str
    clients: Clients
    mailings: Mailings
    messages: Messages
    admin: Admin


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def service() -> Iterator[Service]:
    # The methods that no test calls are left out.
    clients, mailings, messages, admin = Clients(), Mailings(), Messages(), Admin()  # type: ignore[abstract]
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        add_ClientServiceServicer_to_server(clients, server)
        add_MailingServiceServicer_to_server(mailings, server)
        add_MessageServiceServicer_to_server(messages, server)
        add_AdminServiceServicer_to_server(admin, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Service(f"127.0.0.1:{port}", clients, mailings, messages, admin)
        server.stop(None).wait()


@pytest.fixture
def run(service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command against the service; return its status and what it wrote."""
    monkeypatch.setenv("MAILING_ADDRESS", service.address)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = main(arguments)
        return Outcome(status, *capsys.readouterr())

    return call
