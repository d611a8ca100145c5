"""When the SDK repeats calls and streams, how imports are cut, and what is read from ids."""

from __future__ import annotations

import json
import socket
import threading

import grpc
import pytest

from mailing import MailingClient, MailingError, client_of, mailing_of, message_id, new_client
from mailing.calls import Attempts, Outage, service_config, with_request_id
from mailing.import_requests import RequestCutter
from mailing.v1.client_service_pb2 import CreateClientRequest, GetClientRequest, ImportClientsRequest
from mailing.v1.mailing_service_pb2 import SendTestMessageRequest
from tests.unit.cli.conftest import Service

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def limited(delay: float) -> MailingError:
    return MailingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", retry_delay=delay)


def test_grpc_repeats_reads_and_creations_and_nothing_else() -> None:
    config = json.loads(service_config())
    (policy,) = config["methodConfig"]
    names = {one["method"] for one in policy["name"]}
    assert names >= {"GetClient", "ListMailings", "WatchMessages", "CreateMailing", "TriggerSchedule"}
    assert names.isdisjoint({"SendTestMessage", "ProbeEndpoint", "UpdateClient", "ImportClients", "RetryMailing"})
    assert policy["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]


def test_a_creation_gets_a_request_id_that_stays() -> None:
    request = CreateClientRequest(client=new_client("70100000001", "UTC"))
    named = with_request_id(request)
    assert len(named.request_id) == 36
    assert not request.request_id
    assert with_request_id(named) is named
    other = SendTestMessageRequest(mailing_id=1)
    assert with_request_id(other) is other


def test_the_service_is_given_the_time_it_asks_for() -> None:
    attempts = Attempts(GetClientRequest(), 10)
    assert [attempts.pause(limited(0.5)) for _ in range(4)] == [0.5] * 4
    for one, failure in (
        (attempts, limited(0.5)),  # the fifth attempt was the last one
        (Attempts(GetClientRequest(), 10), limited(11)),  # the deadline is nearer
        (Attempts(GetClientRequest(), 10), limited(0)),
        (Attempts(SendTestMessageRequest(), 10), limited(0.5)),
    ):
        with pytest.raises(MailingError) as raised:
            one.pause(failure)
        assert raised.value is failure


@pytest.mark.parametrize(
    ("failure", "passes"),
    [
        (MailingError(UNAVAILABLE, "DATABASE_UNAVAILABLE"), True),
        (MailingError(grpc.StatusCode.INTERNAL), True),
        (MailingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "READER_TOO_SLOW"), True),
        (limited(2.0), True),
        (MailingError(grpc.StatusCode.INTERNAL, "INTERNAL"), False),
        (MailingError(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"), False),
    ],
)
def test_a_stream_is_opened_again_where_waiting_helps(failure: MailingError, passes: bool) -> None:
    outage = Outage(None)
    with pytest.raises(MailingError):
        outage.pause(failure)  # it never answered
    outage.end()
    if passes:
        assert 0.05 <= outage.pause(failure) <= 2.0
        assert outage.pause(failure) <= max(0.2, failure.retry_delay)
    else:
        with pytest.raises(MailingError):
            outage.pause(failure)


def test_a_stream_whose_token_ended_is_opened_once_more() -> None:
    """The next token may be a good one; the one after that is not asked for before an answer."""
    outage, failure = Outage(None), MailingError(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    outage.end()
    assert outage.pause(failure) <= 2.0
    with pytest.raises(MailingError):
        outage.pause(failure)


def test_a_call_waits_as_the_service_asks_and_is_repeated(service: Service) -> None:
    service.clients.refusals = [0.05, 0.05]
    with MailingClient.connect(service.address) as client:
        assert client.create_client(new_client("70100000001", "UTC")).phone == "70100000001"
        service.clients.refusals = [100.0]
        with pytest.raises(MailingError) as raised:
            client.create_client(new_client("70100000002", "UTC"))
    assert raised.value.retry_delay == 100
    assert len(set(service.clients.request_ids[:3])) == 1


@pytest.mark.parametrize("address", ["", "localhost", "http://localhost:50051", "localhost:99999", ":50051"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a service such as"):
        MailingClient.connect(address)


@pytest.mark.parametrize("address", ["localhost:50051", "[::1]:50051", "unix:/run/mailing", "dns:///mailing:50051"])
def test_an_address_is_taken_as_grpc_writes_it(address: str) -> None:
    MailingClient.connect(address).close()


def test_what_no_service_answers_is_explained() -> None:
    """Fails for gRPC's own words alone: a peer that speaks HTTP/1, and nobody at all."""
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            while True:
                try:
                    peer, _ = web.accept()
                except OSError:
                    return
                peer.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                peer.close()

        threading.Thread(target=answer, daemon=True).start()
        for address, sentence in (
            (f"127.0.0.1:{web.getsockname()[1]}", "what answers at this address is no gRPC service"),
            ("127.0.0.1:1", "no service listens at this address"),
        ):
            with MailingClient.connect(address, timeout=5) as client, pytest.raises(MailingError) as raised:
                client.get_mailing(1)
            assert raised.value.is_transport
            assert raised.value.message.startswith(sentence)
        web.shutdown(socket.SHUT_RDWR)


def test_an_import_is_cut_by_bytes_as_well() -> None:
    full = new_client("70100000001", "UTC", attributes={f"a{n}": "x" * 1000 for n in range(64)})
    cutter, requests = RequestCutter(ImportClientsRequest(skip_invalid=True)), []
    for _ in range(100):
        if not cutter.has_room(full):
            requests.append(cutter.take())
        cutter.add(full)
    requests.append(cutter.take())
    assert cutter.sent == sum(len(one.clients) for one in requests) == 100
    assert all(one.ByteSize() <= 1 << 20 for one in requests)
    assert len(requests) == 7
    assert [one.skip_invalid for one in requests] == [True, *[False] * 6]


def test_the_id_of_a_message_names_its_mailing_and_its_client() -> None:
    identity = message_id(3_000_000, 5)
    assert identity == 12884901888000005
    assert (mailing_of(identity), client_of(identity)) == (3_000_000, 5)
