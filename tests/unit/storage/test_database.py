"""The API and the dispatcher agree on what says that the database is away."""

from __future__ import annotations

import asyncpg
import pytest

from dispatcher.ports import StorageUnavailable
from server.domain.errors import DatabaseUnavailable
from server.storage.database import AWAY, _in_domain_words
from server.storage.reach import translate_database_errors

FAILURES = [
    ConnectionRefusedError(),
    TimeoutError(),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("too many clients"),
    asyncpg.ReadOnlySQLTransactionError("cannot execute UPDATE in a read-only transaction"),
    asyncpg.exceptions.TargetServerAttributeNotMatched("none is a primary"),
    asyncpg.exceptions.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    asyncpg.InterfaceError("connection is closed"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
def test_trying_again_later_may_help(failure: Exception) -> None:
    """The client's internal error is what a connection says that is cut off while it is being used."""
    with pytest.raises(DatabaseUnavailable), _in_domain_words():
        raise failure
    with pytest.raises(StorageUnavailable), translate_database_errors():
        raise failure


def test_a_defect_of_a_statement_is_none_of_them() -> None:
    assert not issubclass(asyncpg.UndefinedColumnError, AWAY)
