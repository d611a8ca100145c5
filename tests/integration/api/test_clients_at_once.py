"""Clients that are added at once share statements and commits; each call is answered as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import grpc

from mailing.v1.client_service_pb2 import CreateClientRequest, DeleteClientRequest
from tests.integration.api.calls import add_client, client
from tests.integration.api.conftest import Service
from tests.support.eventually import eventually
from tests.support.locks import CLIENTS, holding

FIRST = 79160000000


async def at_once(service: Service, requests: Sequence[CreateClientRequest]) -> list[Any]:
    """Make these calls at the same time; return the responses and the errors."""

    async def call(request: CreateClientRequest) -> Any:
        return await service.clients.CreateClient(request)

    return await asyncio.gather(*map(call, requests), return_exceptions=True)


def new(number: int, **fields: Any) -> CreateClientRequest:
    return CreateClientRequest(client=client(FIRST + number), **fields)


async def test_clients_that_are_added_at_once_share_commits(service: Service, pool: asyncpg.Pool) -> None:
    """The first statement waits for a lock until all calls have come: the next ones have the others."""
    labels = {"grpc_service": "mailing.v1.ClientService", "grpc_method": "CreateClient", "grpc_type": "UNARY"}

    def begun() -> float | None:
        return service.registry.get_sample_value("grpc_server_started_total", labels)

    requests = [new(number, request_id=str(uuid4())) for number in range(60)]
    async with holding(pool, CLIENTS):
        calls = asyncio.create_task(at_once(service, requests))
        await eventually(begun, lambda count: count == len(requests))
    answers = await calls
    assert [one.client.phone for one in answers] == [str(FIRST + number) for number in range(60)]
    rows = await pool.fetchrow("SELECT count(*) AS n, count(DISTINCT xmin::text) AS commits FROM clients")
    assert (rows["n"], rows["commits"] < 10) == (60, True)


async def test_every_added_client_is_among_the_changes_once(service: Service, pool: asyncpg.Pool) -> None:
    """Running mailings find new clients there: fails when a bucket with two of them is told of one."""
    answers = await at_once(service, [new(number) for number in range(40)])
    changes = await pool.fetch("SELECT bucket, unnest(client_ids) AS id FROM client_changes")
    assert sorted(row["id"] for row in changes) == sorted(one.client.id for one in answers)
    assert all(row["bucket"] == row["id"] % 16 for row in changes)


async def test_a_refused_client_refuses_no_other(service: Service) -> None:
    taken = await add_client(service, FIRST + 3)
    used = str(uuid4())
    await service.clients.CreateClient(new(100, request_id=used))
    requests = [new(number) for number in range(10)]
    requests[5] = new(5, request_id=used)
    answers = await at_once(service, requests)
    reasons = {number: one.code().name for number, one in enumerate(answers) if isinstance(one, grpc.aio.AioRpcError)}
    assert (taken.phone, reasons) == (str(FIRST + 3), {3: "ALREADY_EXISTS", 5: "ALREADY_EXISTS"})


async def test_one_of_two_who_take_a_phone_at_once_gets_it(service: Service) -> None:
    answers = await at_once(service, [new(1, request_id=str(uuid4())) for _ in range(6)])
    assert sorted(isinstance(one, Exception) for one in answers) == [False] + [True] * 5


async def test_a_call_that_is_made_twice_at_once_adds_one_client(service: Service, pool: asyncpg.Pool) -> None:
    same = str(uuid4())
    answers = await at_once(service, [new(1, request_id=same) for _ in range(6)])
    assert len({one.client.id for one in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM clients") == 1


async def test_an_opt_out_comes_back_with_its_phone_in_the_midst_of_others(service: Service) -> None:
    gone = await add_client(service, FIRST + 4, opted_out=True)
    await service.clients.DeleteClient(DeleteClientRequest(client_id=gone.id))
    answers = await at_once(service, [new(number) for number in range(8)])
    assert [number for number, one in enumerate(answers) if one.client.opted_out] == [4]
