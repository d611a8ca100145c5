"""Every way in which the database can be away, told as StorageUnavailable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from dispatcher.ports import StorageUnavailable

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


class Failures:
    """How often the database could not be reached, or not in time, since the process began."""

    count = 0


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise StorageUnavailable for whatever says that the block should be tried again later."""
    try:
        yield
    except _AWAY as error:
        Failures.count += 1
        raise StorageUnavailable(f"{type(error).__name__}: {error}") from error
