"""The SDK: calls, pages, imports and errors, on a fake channel and on a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import grpc
import grpc_testing
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_status import rpc_status

from mailing import FieldViolation, MailingClient, MailingError, mailing_errors, new_client, new_mailing
from mailing.v1 import client_service_pb2, mailing_service_pb2, message_service_pb2
from mailing.v1.client_pb2 import Client
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message
from tests.unit.cli.conftest import Service
from tests.unit.cli.service import rich_status

MAILINGS = mailing_service_pb2.DESCRIPTOR.services_by_name["MailingService"]
MESSAGES = message_service_pb2.DESCRIPTOR.services_by_name["MessageService"]
CLIENTS = client_service_pb2.DESCRIPTOR.services_by_name["ClientService"]


@pytest.fixture
def channel() -> grpc_testing.Channel:
    return grpc_testing.channel([MAILINGS, MESSAGES, CLIENTS], grpc_testing.strict_real_time())


def start(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Make a call in a thread that nobody has to wait for, so that a broken test ends too."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def take(channel: grpc_testing.Channel, method: MethodDescriptor) -> tuple[Any, Any]:
    """Wait for a call as the service would; return its request and what answers it."""
    _, request, call = start(channel.take_unary_unary, method).result(10)
    return request, call


def test_a_mailing_is_created_with_a_fresh_request_id(channel: grpc_testing.Channel) -> None:
    result = start(MailingClient(channel).create_mailing, new_mailing("Hello"))
    request, call = take(channel, MAILINGS.methods_by_name["CreateMailing"])
    assert request.mailing == Mailing(text="Hello")
    assert UUID(request.request_id).version == 4
    call.terminate(mailing_service_pb2.CreateMailingResponse(mailing=Mailing(id=7)), (), grpc.StatusCode.OK, "")
    assert result.result(10).id == 7


def test_a_list_follows_its_pages_to_the_end(channel: grpc_testing.Channel) -> None:
    result = start(lambda: [one.id for one in MailingClient(channel).list_messages(7, page_size=2)])
    tokens = []
    for ids, token in (((1, 2), "a"), ((3, 4), "b"), ((5,), "")):
        request, call = take(channel, MESSAGES.methods_by_name["ListMessages"])
        assert (request.mailing_id, request.page_size) == (7, 2)
        tokens.append(request.page_token)
        page = message_service_pb2.ListMessagesResponse(
            messages=[Message(id=one) for one in ids], next_page_token=token
        )
        call.terminate(page, (), grpc.StatusCode.OK, "")
    assert result.result(10) == [1, 2, 3, 4, 5]
    assert tokens == ["", "a", "b"]


def test_an_update_names_its_fields_only_when_told(channel: grpc_testing.Channel) -> None:
    client = MailingClient(channel)
    for fields in (["tag", "timezone"], None):
        start(client.update_client, Client(id=1), fields)
        request, call = take(channel, CLIENTS.methods_by_name["UpdateClient"])
        assert request.HasField("update_mask") == (fields is not None)
        assert list(request.update_mask.paths) == (fields or [])
        call.terminate(client_service_pb2.UpdateClientResponse(), (), grpc.StatusCode.OK, "")


@pytest.mark.parametrize("name", ["Pause", "Cancel"])
def test_a_pause_and_a_cancel_carry_the_etag(name: str, channel: grpc_testing.Channel) -> None:
    start(getattr(MailingClient(channel), f"{name.lower()}_mailing"), 7, "7-3")
    request, call = take(channel, MAILINGS.methods_by_name[f"{name}Mailing"])
    assert (request.mailing_id, request.etag) == (7, "7-3")
    call.terminate(mailing_service_pb2.PauseMailingResponse(), (), grpc.StatusCode.OK, "")


def test_a_deletion_returns_a_number_with_what_is_left(channel: grpc_testing.Channel) -> None:
    result = start(MailingClient(channel).delete_mailing, 7)
    _, call = take(channel, MAILINGS.methods_by_name["DeleteMailing"])
    answer = mailing_service_pb2.DeleteMailingResponse(deleted_messages=3, remaining_messages=5)
    call.terminate(answer, (), grpc.StatusCode.OK, "")
    deleted = result.result(10)
    assert (deleted, deleted + 1, f"{deleted:,}", deleted.remaining) == (3, 4, "3", 5)


def test_an_update_may_only_be_tried(channel: grpc_testing.Channel) -> None:
    start(lambda: MailingClient(channel).update_mailing(Mailing(id=7), validate_only=True))
    request, call = take(channel, MAILINGS.methods_by_name["UpdateMailing"])
    assert request.validate_only
    call.terminate(mailing_service_pb2.UpdateMailingResponse(), (), grpc.StatusCode.OK, "")


def test_an_error_tells_code_reason_sentence_and_fields(channel: grpc_testing.Channel) -> None:
    result = start(MailingClient(channel).get_mailing, 7)
    _, call = take(channel, MAILINGS.methods_by_name["GetMailing"])
    status = rpc_status.to_status(
        rich_status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "bad", [("mailing_id", "must be positive")])
    )
    call.terminate(None, status.trailing_metadata, status.code, status.details)
    with pytest.raises(MailingError) as raised:
        result.result(10)
    error = raised.value
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "bad")
    assert error.fields == (FieldViolation("mailing_id", "must be positive"),)
    assert str(error) == "INVALID_ARGUMENT: mailing_id: must be positive (INVALID_FIELD)"


@pytest.mark.parametrize(
    "metadata", [(), (("grpc-status-details-bin", b"\x08\x05"),)], ids=["absent", "of another status"]
)
def test_an_error_without_its_details_still_is_one(
    metadata: tuple[tuple[str, bytes], ...], channel: grpc_testing.Channel
) -> None:
    result = start(MailingClient(channel).get_mailing, 7)
    _, call = take(channel, MAILINGS.methods_by_name["GetMailing"])
    call.terminate(None, metadata, grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(MailingError, match=r"^INTERNAL: broken$"):
        result.result(10)


def test_a_bare_grpc_error_is_translated_too() -> None:
    with pytest.raises(MailingError, match="UNKNOWN: odd") as raised, mailing_errors():
        raise grpc.RpcError("odd")
    assert isinstance(raised.value.__cause__, grpc.RpcError)


def phones(count: int) -> Iterator[Client]:
    return (new_client(f"7010{number:07}", "UTC") for number in range(count))


def test_clients_are_imported_in_batches_of_500(service: Service) -> None:
    with MailingClient.connect(service.address) as client:
        assert client.import_clients(phones(1201)).created == 1201
    assert service.clients.batch_sizes == [500, 500, 201]


def test_an_import_of_nothing_is_an_import(service: Service) -> None:
    with MailingClient.connect(service.address) as client:
        assert client.import_clients([]).created == 0


@pytest.mark.parametrize("before", [0, 499, 500, 1200])
def test_an_import_whose_source_fails_imports_nothing_and_raises(before: int, service: Service) -> None:
    class SourceFailedError(Exception):
        pass

    def source() -> Iterator[Client]:
        yield from phones(before)
        raise SourceFailedError

    with MailingClient.connect(service.address) as client:
        with pytest.raises(SourceFailedError):
            client.import_clients(source())
        assert client.import_clients([new_client("70200000000", "UTC")]).created == 1
    assert [one.phone for one in service.clients.stored] == ["70200000000"]


def test_an_import_reads_its_source_no_faster_than_the_service_takes_it(service: Service) -> None:
    reading = threading.Event()
    original = service.clients.ImportClients

    def slow(requests: Any, context: grpc.ServicerContext) -> Any:
        assert reading.wait(10)
        return original(requests, context)

    service.clients.ImportClients = slow  # type: ignore[method-assign,assignment]
    read = 0

    def source() -> Iterator[Client]:
        nonlocal read
        for one in phones(400_000):
            read += 1
            yield one

    with MailingClient.connect(service.address) as client:
        result = start(client.import_clients, source())
        assert not reading.wait(0.5)
        assert 0 < read < 200_000
        reading.set()
        assert result.result(60).created == 400_000


def test_a_refused_import_names_the_client(service: Service) -> None:
    service.clients.bad_phones["70100000003"] = ("timezone", "is not a time zone")
    with MailingClient.connect(service.address) as client, pytest.raises(MailingError) as raised:
        client.import_clients(phones(10))
    assert raised.value.fields == (FieldViolation("clients[3].timezone", "is not a time zone"),)


def test_an_export_is_one_stream_and_its_errors_are_translated(service: Service) -> None:
    service.clients.stored = list(phones(3))
    with MailingClient.connect(service.address) as client:
        assert list(client.export_clients()) == service.clients.stored
    with MailingClient.connect("127.0.0.1:1") as client, pytest.raises(MailingError) as raised:
        list(client.export_clients())
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_the_token_goes_with_every_call(service: Service) -> None:
    with MailingClient.connect(service.address, "secret") as client:
        client.create_client(new_client("70100000001", "UTC"))
    assert service.clients.metadata["authorization"] == "Bearer secret"
    assert service.clients.metadata["user-agent"].startswith("mailing-python/")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with MailingClient.connect(service.address) as client:
        assert client.import_clients([]).created == 0


def test_the_stubs_of_all_services_are_there() -> None:
    with MailingClient.connect("127.0.0.1:1") as client:
        assert client.clients.GetClient
        assert client.mailings.PreviewMailing
        assert client.messages.ListAttempts
        assert client.delivery.WatchMailing
        assert client.admin.GetDispatch
