"""A standby takes what only reads, as long as it is close behind; nothing depends on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from dispatcher.model.states import AudienceMode, MailingState
from server.config import Settings
from server.domain.errors import DatabaseUnavailable, NotFound
from server.domain.filters import ClientFilter
from server.domain.pagination import PageRequest
from server.embedded_postgres.binaries import choose_binaries
from server.embedded_postgres.server import EmbeddedPostgres
from server.observability.metrics.database import standby_samples
from server.storage.clients import ClientStore
from server.storage.database import Database, SharedDatabase
from server.storage.installation import read_installation
from server.storage.migrate import migrate
from server.storage.pool import open_pool, open_standby
from server.storage.reports import ReportStore
from server.storage.standby import Standby
from server.storage.verification import Verification
from tests.conftest import FAST
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing

FILTER = ClientFilter(tags=("x",))


class Servers:
    """A primary, and a standby that follows it."""

    def __init__(self, folder: Path) -> None:
        self.primary = EmbeddedPostgres(folder / "a", FAST)
        self.standby = EmbeddedPostgres(folder / "b", FAST)
        self.dsn = self.primary.start()
        copy = folder / "b" / "postgres"
        copy.parent.mkdir(mode=0o700)
        tool = Path(choose_binaries(copy).postgres).with_name("pg_basebackup")
        subprocess.run([tool, "-d", self.dsn, "-D", copy, "-R", "--checkpoint=fast", "--no-sync"], check=True)
        self.read_dsn = self.standby.start()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Yield two servers, of which the second follows the first."""
    made = Servers(tmp_path)
    try:
        yield made
    finally:
        made.standby.stop()
        made.primary.stop()


class Replicated:
    """A service's database with its standby, and stores on it."""

    def __init__(self, pool: asyncpg.Pool, standby: Standby, database: SharedDatabase, clients: ClientStore) -> None:
        self.pool = pool
        self.standby = standby
        self.database = database
        self.clients = clients

    async def used(self) -> bool:
        """Return whether reads go to the standby."""
        return self.database.reads is self.standby.database

    async def found(self) -> int:
        """Return how many clients a filtered list has."""
        page = await self.clients.list_page(FILTER, receiving_now=False, page=PageRequest(1000, ""))
        return len(page.records)


async def open_replicated(stack: AsyncExitStack, servers: Servers, **settings: object) -> Replicated:
    """Open a pool on the primary, and the standby as the settings say."""
    chosen = Settings(dsn=servers.dsn, read_dsn=servers.read_dsn, **settings)  # type: ignore[arg-type]
    pool = await stack.enter_async_context(open_pool(servers.dsn, chosen))
    standby = await stack.enter_async_context(open_standby(chosen, Database(pool)))
    assert standby is not None
    database = SharedDatabase(pool, replica=standby)
    return Replicated(pool, standby, database, ClientStore(database, await read_installation(database)))


async def test_reads_go_to_a_standby_that_is_close_behind(servers: Servers) -> None:
    """Fails when it is read before it was looked at, or when what it shows is older than it may be."""
    await migrate(servers.dsn)
    async with AsyncExitStack() as stack:
        replicated = await open_replicated(stack, servers, read_max_lag=2.0)
        assert not await replicated.used()
        assert standby_samples(replicated.standby) == {}
        await add_clients(replicated.pool, 3, tag="x")
        await eventually(replicated.used, bool)
        await eventually(replicated.found, lambda count: count == 3)
        assert replicated.standby.lag <= 2.0
        assert standby_samples(replicated.standby).keys() == {"mailing_standby_lag_seconds"}

        async with AsyncExitStack() as held:
            follower = await held.enter_async_context(Database(await _pool(held, servers.read_dsn)).connection())
            await follower.execute("SELECT pg_wal_replay_pause()")
            await add_clients(replicated.pool, 2, first=1000, tag="x")
            await eventually(replicated.used, lambda used: not used)
            assert await replicated.found() == 5
            await follower.execute("SELECT pg_wal_replay_resume()")
        await eventually(replicated.used, bool)
        await eventually(replicated.found, lambda count: count == 5)


async def test_what_the_standby_does_not_have_yet_is_found(servers: Servers) -> None:
    """Fails when the report of a mailing that was just created does not exist."""
    await migrate(servers.dsn)
    async with AsyncExitStack() as stack:
        replicated = await open_replicated(stack, servers, read_max_lag=60.0)
        await eventually(replicated.used, bool)
        follower = await asyncpg.connect(servers.read_dsn)
        stack.push_async_callback(follower.close)
        await follower.execute("SELECT pg_wal_replay_pause()")
        mailing = await add_mailing(replicated.pool, state=MailingState.RUNNING, audience=AudienceMode.SNAPSHOT)
        assert await replicated.used()
        reports = ReportStore(replicated.database)
        assert (await reports.read(mailing)).mailing.id == mailing
        with pytest.raises(NotFound):
            await reports.read(mailing + 1)
        await follower.execute("SELECT pg_wal_replay_resume()")


async def test_a_standby_that_goes_away_costs_one_answer_at_most(servers: Servers) -> None:
    """Fails when reads go on failing until somebody removes the setting, and when it is not used again."""
    await migrate(servers.dsn)
    async with AsyncExitStack() as stack:
        replicated = await open_replicated(stack, servers, database_timeout=2.0)
        await add_clients(replicated.pool, 3, tag="x")
        await eventually(replicated.used, bool)
        servers.standby.stop()
        try:
            assert await replicated.found() == 3
        except DatabaseUnavailable:
            assert not await replicated.used()
        assert await replicated.found() == 3
        servers.read_dsn = servers.standby.start()
        await eventually(replicated.used, bool, within=30.0)
        await eventually(replicated.found, lambda count: count == 3)


async def test_an_audit_reads_the_standby_and_goes_on_without(servers: Servers) -> None:
    """Fails when an audit reads the database although there is a standby, and when it ends with the standby."""
    await migrate(servers.dsn)
    async with AsyncExitStack() as stack:
        replicated = await open_replicated(stack, servers, database_timeout=2.0)
        await eventually(replicated.used, bool)
        follower = await asyncpg.connect(servers.read_dsn)
        await follower.execute("SELECT pg_wal_replay_pause()")
        await replicated.pool.execute("UPDATE buckets SET journal_seq = 1 WHERE bucket = 3")
        verification = Verification(replicated.database)
        assert await verification.run() == []
        await follower.close()
        assert await replicated.used()
        servers.standby.stop()
        assert [(one.bucket, one.found) for one in await verification.run()] == [(3, "1 entries are missing")]


async def test_a_primary_is_no_standby(servers: Servers) -> None:
    """Fails when a standby that was promoted, with changes of its own, is read."""
    await migrate(servers.dsn)
    async with AsyncExitStack() as stack:
        replicated = await open_replicated(stack, servers)
        await eventually(replicated.used, bool)
        follower = await asyncpg.connect(servers.read_dsn)
        await follower.fetchval("SELECT pg_promote()")
        await follower.close()
        await eventually(replicated.used, lambda used: not used)
        await replicated.standby.poll()
        assert not await replicated.used()


async def _pool(stack: AsyncExitStack, dsn: str) -> asyncpg.Pool:
    return await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=1))
