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
    """Lend a pool with the timeouts of the settings, of `size` or the size of the settings.

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
    """Do not reset a connection that is returned: no session has state, and it would cost a round trip."""


def _session(settings: Settings) -> dict[str, str] | None:
    """Return the parameters of every session; none without prepared statements, as poolers reject them."""
    if settings.statement_cache_size == 0:
        return None
    # Tables grow by orders of magnitude while a prepared statement exists: JIT would compile for wrong estimates.
    return {"application_name": "mailing", "jit": "off"}


def _unreachable(dsn: str, settings: Settings, error: Exception) -> DatabaseError:
    variable = "MAILING_DSN" if settings.dsn else "POSTGRES_HOST" if settings.postgres_host else "MAILING_DATA_DIR"
    why = " ".join(str(error).split()) or f"no answer within {settings.database_timeout:g} s"
    return DatabaseError(f"The database at {masked(dsn)} ({variable}) cannot be used: {why.rstrip('.')}.")
