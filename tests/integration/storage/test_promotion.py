"""A standby that lagged behind is promoted: watchers learn that something is lost, never nothing.

Two real servers, and one service that knows both. Fails when tokens do not name the server's
timeline: the new primary gives numbers that were taken before to other changes.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from mailing.v1 import admin_service_pb2 as admin
from mailing.v1 import delivery_service_pb2 as delivery
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from server.config import Settings
from server.embedded_postgres.binaries import choose_binaries
from server.embedded_postgres.server import EmbeddedPostgres
from server.runtime.api_settings import ApiSettings
from server.storage.migrate import migrate
from server.storage.pool import open_pool
from server.watch import Polling, StreamSettings
from tests.conftest import FAST
from tests.integration.watch.ledger import append
from tests.support.api import serving
from tests.support.eventually import eventually

STREAMS = StreamSettings(checkpoint=0.2, polling=Polling(shortest=0.01, longest=0.02, away=0.05))


class Pair:
    """A primary, and a standby that stopped following it when it was made."""

    def __init__(self, folder: Path) -> None:
        self.primary = EmbeddedPostgres(folder / "a", FAST)
        self._standby = EmbeddedPostgres(folder / "b", FAST)
        self._copy = folder / "b" / "postgres"
        self._first = self.primary.start()
        self._second = ""

    def follow(self) -> None:
        """Copy the primary as it is, for a standby that gets no more from it."""
        self._copy.parent.mkdir(mode=0o700)
        tool = Path(choose_binaries(self._copy).postgres).with_name("pg_basebackup")
        subprocess.run([tool, "-d", self._first, "-D", self._copy, "--checkpoint=fast", "--no-sync"], check=True)
        (self._copy / "standby.signal").touch()
        self._second = self._standby.start()

    @property
    def dsn(self) -> str:
        """Both servers."""
        return f"{self._first},{self._second.partition('host=')[2]}"

    async def promote(self) -> None:
        """Make the standby the primary, which is gone."""
        self.primary.stop()
        connection = await asyncpg.connect(self._second)
        await connection.fetchval("SELECT pg_promote()")
        await connection.close()

    def stop(self) -> None:
        """Stop both."""
        self.primary.stop()
        self._standby.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Yield two servers with the schema."""
    servers = Pair(tmp_path)
    try:
        yield servers
    finally:
        servers.stop()


@asynccontextmanager
async def served(dsn: str) -> AsyncIterator[tuple[asyncpg.Pool, grpc.aio.Channel]]:
    """Lend a pool on both servers, and a channel to a service on it."""
    settings = replace(ApiSettings(), streams=STREAMS)
    async with (
        open_pool(dsn, Settings()) as pool,
        serving(pool, settings=settings) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield pool, channel


async def expires(stream: Any) -> bool:
    """Read a stream to its end, and return whether it ends because its position is lost."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [_ async for _ in stream]
    return refused.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_what_a_lagging_standby_lost_is_not_passed_over(pair: Pair) -> None:
    await migrate(pair.dsn.partition(",")[0])
    pair.follow()
    async with served(pair.dsn) as (pool, channel), asyncio.timeout(30):
        watching, logging = DeliveryServiceStub(channel), AdminServiceStub(channel)
        await append(pool, 1, 16, 2)
        changes = watching.WatchMessages(delivery.WatchMessagesRequest(from_start=True))
        log = logging.WatchLog(admin.WatchLogRequest())
        token, log_token = (await anext(aiter(changes))).resume_token, (await anext(aiter(log))).resume_token

        await pair.promote()

        async def appended() -> bool:
            try:
                await append(pool, 1, 32, 2, clients=3)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return False
            return True

        await eventually(appended)
        await eventually(appended)
        assert await expires(changes)
        assert await expires(log)
        assert await expires(watching.WatchMessages(delivery.WatchMessagesRequest(resume_token=token)))
        assert await expires(logging.WatchLog(admin.WatchLogRequest(resume_token=log_token)))
        fresh = watching.WatchMessages(delivery.WatchMessagesRequest(from_start=True))
        assert len((await anext(aiter(fresh))).changes) == 6
