"""Request ids: taken or made, given back whatever happens, and in every log line of their call only."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import asyncpg
import grpc
import pytest
import structlog

from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    ExportClientsRequest,
    GetClientRequest,
    ImportClientsRequest,
)
from mailing.v1.mailing_service_pb2 import GetMailingRequest
from server.api.interceptors.request_ids import REQUEST_ID
from server.observability.logging import configure_logs
from tests.integration.api.calls import add_client, client
from tests.integration.api.conftest import Service
from tests.support.eventually import eventually

GIVEN = "trace-1.a:b/c+d=e@f_g"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Yield what the service logs from here on, at level debug, as JSON lines."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(text):
        configure_logs("debug", "json")
    yield text
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def ids(metadata: Any) -> list[str]:
    return [value for key, value in metadata or () if key == REQUEST_ID]


async def test_a_given_id_comes_back_from_all_kinds_of_calls_and_all_ends(service: Service) -> None:
    """Fails when the interceptor sets no trailer, and when a refusal replaces the trailer that was set."""
    made = await add_client(service)

    async def pieces() -> Any:
        yield ImportClientsRequest(clients=[client(79990000000)])

    metadata = ((REQUEST_ID, GIVEN),)
    calls: list[Any] = [
        service.clients.GetClient(GetClientRequest(client_id=made.id), metadata=metadata),
        service.clients.GetClient(GetClientRequest(client_id=1 << 40), metadata=metadata),
        service.clients.CreateClient(CreateClientRequest(), metadata=metadata),
        service.clients.ImportClients(pieces(), metadata=metadata),
        service.clients.ExportClients(ExportClientsRequest(), metadata=metadata),
    ]
    assert [answer async for answer in calls[-1]]
    codes = [await call.code() for call in calls]
    assert [code.name for code in codes] == ["OK", "NOT_FOUND", "INVALID_ARGUMENT", "OK", "OK"]
    assert [ids(await call.trailing_metadata()) for call in calls] == [[GIVEN]] * len(calls)


@pytest.mark.parametrize(
    "given",
    [[], [""], ["two words"], ["x" * 129], ['{"a":1}'], ["one", "two"], ["semi;colon"]],
    ids=["none", "empty", "blank", "long", "json", "two", "punctuation"],
)
async def test_an_id_that_is_missing_or_unfit_is_replaced(service: Service, given: list[str]) -> None:
    metadata = tuple((REQUEST_ID, value) for value in given)
    call: Any = service.clients.GetClient(GetClientRequest(client_id=1), metadata=metadata)
    await call.code()
    (answered,) = ids(await call.trailing_metadata())
    assert answered not in given
    assert len(answered) == 32


async def test_every_line_of_a_call_has_its_ids_and_no_other_call_s(
    service: Service, pool: asyncpg.Pool, log: io.StringIO
) -> None:
    """Two calls at once that end with an internal error; fails when the ids are bound outside of the call's task."""
    await pool.execute("ALTER TABLE mailings RENAME TO elsewhere")
    calls: list[Any] = [
        service.mailings.GetMailing(GetMailingRequest(mailing_id=number), metadata=((REQUEST_ID, f"id-{number}"),))
        for number in (1, 2)
    ]
    assert await asyncio.gather(*(call.code() for call in calls)) == [grpc.StatusCode.INTERNAL] * 2

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in log.getvalue().splitlines()]
        return [line for line in found if line["logger"].startswith("server.api")]

    await eventually(lambda: len(lines()), lambda count: count == 4)  # the last line comes after the answer
    for number in (1, 2):
        own = [line for line in lines() if line.get("request_id") == f"id-{number}"]
        assert [(line["level"], line["mailing_id"]) for line in own] == [("error", number), ("debug", number)]
        assert own[1]["method"] == "/mailing.v1.MailingService/GetMailing"
