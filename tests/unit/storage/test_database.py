"""What errors of the driver mean that a test cannot provoke on a real server."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from server.storage.faults import Fault, classify

AWAY = [
    ConnectionRefusedError(),
    TimeoutError(),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("too many clients"),
    asyncpg.OutOfMemoryError("out of memory"),
    asyncpg.TransactionTimeoutError("terminating connection due to transaction timeout"),
    asyncpg.exceptions.TargetServerAttributeNotMatched("none is a primary"),
    asyncpg.exceptions.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.InterfaceError("pool is closing"),
]
BUGS = [
    asyncpg.InterfaceError("pool is not initialized"),
    asyncpg.InterfaceError("cannot commit; the transaction is already committed"),
    asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
    asyncpg.DataError("invalid input for query argument $1: the connection is closed"),
    asyncpg.InFailedSQLTransactionError("current transaction is aborted"),
    KeyError("bucket"),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda one: type(one).__name__)
def test_waiting_helps_against_an_absent_database(error: Exception) -> None:
    """The client's internal error is what a connection says that is cut off while it is being used."""
    assert classify(error) is Fault.AWAY


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError(""), asyncpg.SerializationError("")])
def test_a_lost_race_may_be_run_again(error: Exception) -> None:
    assert classify(error) is Fault.RACE


@pytest.mark.parametrize("error", BUGS, ids=lambda one: type(one).__name__)
def test_a_mistake_of_ours_is_not_the_database_s(error: BaseException) -> None:
    assert classify(error) is Fault.BUG
