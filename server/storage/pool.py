"""The pool of one process's connections, opened at start.

`DatabaseError` tells in one sentence why the database cannot be used at start. Later errors are
handled where the pool is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from server.config import Settings, masked
from server.storage.database import Database, tidy
from server.storage.distribution import ClusterError, distribute, follow_migration, is_distributed, problems
from server.storage.faults import CONNECT_ERRORS, session_attributes
from server.storage.migrate import MigrationError, migrate, require_schema
from server.storage.requirements import (
    UnfitDatabase,
    explain,
    require_buckets,
    require_rights,
    require_sessions,
    require_writable_utf8,
)
from server.storage.standby import Standby

_CLOSE_TIMEOUT = 5.0  # seconds

_REFUSALS = (*CONNECT_ERRORS, UnfitDatabase)
"""What may be raised where a DSN, a server or a database cannot be used."""


class DatabaseError(Exception):
    """The database cannot be used; the message is one sentence that says what to do."""


async def prepare_database(dsn: str, settings: Settings, lay_out: bool = False) -> tuple[list[str], list[str]]:
    """Bring the database to this release's schema; return the versions applied and the tables laid out.

    With `lay_out` the tables are laid out over a cluster; where they are already, new ones follow in any case.
    Raise DatabaseError, also for a database that this release cannot work with.
    """
    async with _connected(dsn, settings) as connection:
        await require_writable_utf8(connection)
        applied = await migrate(connection, buckets=settings.buckets)
        laid_out = await (distribute if lay_out else follow_migration)(connection)
        await require_rights(connection)
        await require_buckets(connection, settings.buckets)
    return applied, laid_out


async def cluster_problems(dsn: str, settings: Settings) -> list[str]:
    """Return what is wrong with the cluster, a sentence each; nothing for a single server. Raise DatabaseError."""
    async with _connected(dsn, settings) as connection:
        return await problems(connection) if await is_distributed(connection) else []


async def check_database(dsn: str, settings: Settings) -> None:
    """Raise DatabaseError unless the database has this release's schema and can be worked with."""
    async with _connected(dsn, settings) as connection:
        await require_writable_utf8(connection)
        await require_schema(connection)
        await require_rights(connection)
        await require_buckets(connection, settings.buckets)


@asynccontextmanager
async def _connected(dsn: str, settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection, also through a pooler; raise DatabaseError for what is wrong with the database."""
    timeout = settings.database_timeout
    try:
        connection = await _connect(dsn, timeout)
        try:
            yield connection
        finally:
            await connection.close(timeout=timeout)
    except (MigrationError, ClusterError) as error:
        raise DatabaseError(str(error)) from error
    except _REFUSALS as error:
        raise _unreachable(dsn, settings, error) from error


async def _connect(dsn: str, timeout: float) -> asyncpg.Connection:
    """Connect to a server that takes writes, or else to any: what is wrong with it is reported then."""
    wanted = session_attributes(dsn)
    try:
        return await asyncpg.connect(dsn, statement_cache_size=0, timeout=timeout, target_session_attrs=wanted)
    except asyncpg.TargetServerAttributeNotMatched:
        if wanted is None:
            raise
        return await asyncpg.connect(dsn, statement_cache_size=0, timeout=timeout, target_session_attrs="any")


@asynccontextmanager
async def open_pool(dsn: str, settings: Settings, size: int | None = None) -> AsyncIterator[asyncpg.Pool]:
    """Lend a pool with the timeouts of the settings, of `size` or the size of the settings.

    Raise DatabaseError when no connection can be made, or none that keeps prepared statements.
    """
    pool = _pool(dsn, settings, 1, size or settings.pool_size, session_attributes(dsn))
    try:
        await pool
    except _REFUSALS as error:
        raise _unreachable(dsn, settings, error) from error
    try:
        if settings.statement_cache_size > 0:
            await _require_sessions(pool, dsn, settings)
        yield pool
    finally:
        await _close(pool)


@asynccontextmanager
async def open_standby(settings: Settings, primary: Database) -> AsyncIterator[Standby | None]:
    """Lend the standby of the settings, if there is one, and look after it; it may be away now and come later."""
    if settings.read_dsn is None:
        yield None
        return
    dsn = settings.read_dsn.get_secret_value()
    pool = _pool(dsn, settings, 0, max(2, settings.pool_size * 4 // 10), None)
    await pool  # connects to nothing yet
    standby = Standby(pool, primary, settings.read_max_lag)
    try:
        async with standby.watched():
            yield standby
    finally:
        await _close(pool)


def _pool(dsn: str, settings: Settings, least: int, most: int, attributes: str | None) -> asyncpg.Pool:
    return asyncpg.create_pool(
        dsn,
        min_size=least,
        max_size=most,
        timeout=settings.database_timeout,
        command_timeout=settings.database_timeout,
        statement_cache_size=settings.statement_cache_size,
        server_settings=_session(settings),
        target_session_attrs=attributes,
        reset=tidy,
    )


async def _close(pool: asyncpg.Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT)
    except TimeoutError:
        pool.terminate()


async def _require_sessions(pool: asyncpg.Pool, dsn: str, settings: Settings) -> None:
    try:
        await require_sessions(pool)
    except _REFUSALS as error:
        raise _unreachable(dsn, settings, error) from error


def _session(settings: Settings) -> dict[str, str] | None:
    """Return the parameters of every session; none without prepared statements, as poolers reject them."""
    if settings.statement_cache_size == 0:
        return None
    # Tables grow by orders of magnitude while a prepared statement exists: JIT would compile for wrong estimates.
    return {"application_name": "mailing", "jit": "off"}


def _unreachable(dsn: str, settings: Settings, error: Exception) -> DatabaseError:
    variable = "MAILING_DSN" if settings.dsn else "POSTGRES_HOST" if settings.postgres_host else "MAILING_DATA_DIR"
    why = explain(error, dsn) or f"no answer within {settings.database_timeout:g} s"
    return DatabaseError(f"The database at {masked(dsn)} ({variable}) cannot be used: {why}.")
