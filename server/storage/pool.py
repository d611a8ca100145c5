"""The connections of one process to its database, and the first contact with it.

`DatabaseError` says in one sentence why the database cannot be used at start; what happens
to it later is the business of those who use the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from server.config import Settings, masked
from server.storage.migrate import MigrationError, migrate

_CLOSE_TIMEOUT = 5.0  # seconds


class DatabaseError(Exception):
    """The database cannot be used; the message is one sentence that says what to do."""


async def prepare_database(dsn: str, settings: Settings) -> list[str]:
    """Bring the database to this release's schema and return the versions applied. Raise DatabaseError."""
    try:
        return await migrate(dsn, timeout=settings.database_timeout)
    except MigrationError as error:
        raise DatabaseError(str(error)) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise _unreachable(dsn, settings, error) from error


@asynccontextmanager
async def open_pool(dsn: str, settings: Settings, size: int | None = None) -> AsyncIterator[asyncpg.Pool]:
    """Lend a pool of the limits that are set, of `size` or the size that is set.

    Raise DatabaseError when no connection can be made.
    """
    pool = asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size or settings.pool_size,
        timeout=settings.database_timeout,
        command_timeout=settings.database_timeout,
        statement_cache_size=settings.statement_cache_size,
        server_settings=_session(settings),
        reset=_keep,
    )
    try:
        await pool
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise _unreachable(dsn, settings, error) from error
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT)
        except TimeoutError:
            pool.terminate()


async def _keep(connection: asyncpg.Connection) -> None:
    """Reset nothing when a connection is given back: nobody leaves state in a session, and it costs a round trip."""


def _session(settings: Settings) -> dict[str, str] | None:
    """Parameters of every session; none without prepared statements, as poolers refuse them."""
    if settings.statement_cache_size == 0:
        return None
    # The tables' sizes change by orders of magnitude while a prepared statement lives: JIT would trust estimates
    # that are wrong.
    return {"application_name": "mailing", "jit": "off"}


def _unreachable(dsn: str, settings: Settings, error: Exception) -> DatabaseError:
    variable = "MAILING_DSN" if settings.dsn else "POSTGRES_HOST" if settings.postgres_host else "MAILING_DATA_DIR"
    why = " ".join(str(error).split()) or f"no answer within {settings.database_timeout:g} s"
    return DatabaseError(f"The database at {masked(dsn)} ({variable}) cannot be used: {why.rstrip('.')}.")
