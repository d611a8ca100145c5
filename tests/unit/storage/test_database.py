"""What errors of the driver mean that a test cannot provoke on a real server."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from server.storage.faults import Fault, classify, ends_server

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
LOST_NODES = [
    asyncpg.ConnectionFailureError(
        "connection to the remote node postgres@10.0.0.2:5432 failed with the following error: Connection refused\n\t"
        "Is the server running on that host and accepting TCP/IP connections?"
    ),
    asyncpg.ConnectionFailureError(
        "connection to the remote node postgres@10.0.0.2:5432 failed with the following error: connection not open"
    ),
    asyncpg.ConnectionFailureError("could not establish any connections to the node 10.0.0.2:5432 after 30000 ms"),
    asyncpg.PostgresIOError("failed to COPY to shard 102153 on 10.0.0.2:5432"),
    asyncpg.InternalServerError("failure on connection marked as essential: 10.0.0.2:5432"),
    asyncpg.InternalServerError(
        "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore "
        "or while processing the request.\ninvalid socket"
    ),
    asyncpg.InternalServerError("SSL SYSCALL error: EOF detected"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
]
"""What Citus 13.2 said when one of its workers was stopped or killed in the middle of statements."""
BUGS = [
    asyncpg.InterfaceError("pool is not initialized"),
    asyncpg.InterfaceError("cannot commit; the transaction is already committed"),
    asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
    asyncpg.DataError("invalid input for query argument $1: the connection is closed"),
    asyncpg.InFailedSQLTransactionError("current transaction is aborted"),
    asyncpg.InternalServerError("cache lookup failed for type 0"),
    asyncpg.InternalServerError("settle: failure on connection marked as essential"),
    KeyError("bucket"),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda one: type(one).__name__)
def test_waiting_helps_against_an_absent_database(error: Exception) -> None:
    """The client's internal error is what a connection says that is cut off while it is being used."""
    assert classify(error) is Fault.AWAY


@pytest.mark.parametrize("error", LOST_NODES, ids=lambda one: type(one).__name__)
def test_waiting_helps_against_a_lost_node_of_a_cluster(error: Exception) -> None:
    assert classify(error) is Fault.AWAY


def test_a_node_that_stops_does_not_end_the_server_before_it() -> None:
    error = asyncpg.AdminShutdownError("terminating connection due to administrator command")
    assert ends_server(error)
    error.context = "while executing command on 10.0.0.2:5432"
    assert not ends_server(error)


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError(""), asyncpg.SerializationError("")])
def test_a_lost_race_may_be_run_again(error: Exception) -> None:
    assert classify(error) is Fault.RACE


@pytest.mark.parametrize("error", BUGS, ids=lambda one: type(one).__name__)
def test_a_mistake_of_ours_is_not_the_database_s(error: BaseException) -> None:
    assert classify(error) is Fault.BUG
