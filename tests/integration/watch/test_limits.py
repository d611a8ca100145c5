"""The limit of streams per principal: a caller over it gets an error, and one that leaves makes room."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import grpc
import pytest

from mailing.v1.delivery_service_pb2 import WatchMailingRequest, WatchMessagesRequest
from mailing.v1.mailing_service_pb2 import GetMailingRequest
from server.api import CallLimits
from server.api.interceptors.limits import principal_of
from server.runtime.api_settings import ApiSettings
from tests.integration.api.calls import refused
from tests.integration.watch.calls import Messages, Progress
from tests.integration.watch.conftest import Replica, Start
from tests.integration.watch.ledger import Work
from tests.support.eventually import eventually
from tests.support.ledger import add_clients

MOST = 4


@pytest.fixture
async def limited(start: Start) -> Replica:
    return await start(ApiSettings(limits=CallLimits(streams=MOST)))


async def test_one_stream_too_many_is_refused_and_calls_are_not(
    pool: asyncpg.Pool, limited: Replica, work: Work
) -> None:
    """Fails when the streams are not counted; a second connection of the host counts with the first."""
    await add_clients(pool, 16)
    mailing = await work.mailing()
    messages = [await Messages(limited).begun() for _ in range(MOST - 1)]
    await Progress(limited, mailing.id).read()
    with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED") as info:
        await Messages(limited).begun()
    assert info.metadata["limit"] == str(MOST)
    async with grpc.aio.insecure_channel(limited.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
            await Progress(Replica(limited.server, limited.address, channel), mailing.id).read()
    await limited.mailings.GetMailing(GetMailingRequest(mailing_id=mailing.id))
    messages[0].cancel()
    await eventually(lambda: begins(limited, messages))


async def test_streams_that_end_anyhow_make_room(pool: asyncpg.Pool, limited: Replica, work: Work) -> None:
    """Fails when the count goes down at good ends only: aborted and refused ones come first here."""
    await add_clients(pool, 16)
    mailing = await work.mailing()
    for number in range(50):
        calls: list[Any] = [
            limited.delivery.WatchMessages(WatchMessagesRequest(mailing_id=mailing.id)),
            limited.delivery.WatchMailing(WatchMailingRequest(mailing_id=mailing.id)),
            limited.delivery.WatchMailing(WatchMailingRequest(mailing_id=mailing.id + 1)),
        ]
        if number % 2:
            await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
        for call in calls:
            call.cancel()
    begun: list[Messages] = []
    while len(begun) < MOST:
        await eventually(lambda: begins(limited, begun))


async def begins(replica: Replica, begun: list[Messages]) -> bool:
    """Begin a stream and add it to `begun`; return False where there was no room for it."""
    messages = Messages(replica)
    try:
        begun.append(await messages.begun())
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return False
        raise
    return True


@pytest.mark.parametrize(
    ("peer", "principal"),
    [
        ("ipv4:10.0.0.1:50123", "ipv4:10.0.0.1"),
        ("ipv6:%5B::1%5D:50123", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
        ("unix:/run/mailing.sock", "unix:/run/mailing.sock"),
    ],
)
def test_a_principal_is_the_host_without_its_port(peer: str, principal: str) -> None:
    assert principal_of(peer) == principal
