"""What an error of the database means: the one function that decides it, for the API and the engine alike."""

from __future__ import annotations

import os
import re
from enum import Enum

import asyncpg


class Fault(Enum):
    """What an error of the database means for the caller."""

    AWAY = "away"
    """The database is down, starting, failing over, full or too slow: waiting helps."""
    RACE = "race"
    """Another transaction got in the way: the same work may succeed at once."""
    BUG = "bug"
    """A mistake in this program: it would fail again."""


CONNECT_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.InternalClientError,
    ValueError,
)
"""What may be raised where a connection is made."""

SERVER_ENDS = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)
"""Errors that speak of the server and not of a statement: it stops, or it is no primary any more."""

RACES = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    # The server ended the session of a transaction that took too long.
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    # A standby where a primary was wanted; a connection that was cut off in the middle of a message.
    asyncpg.exceptions.InternalClientError,
    OSError,
    TimeoutError,
)

_ENDED = re.compile(
    "(pool|connection) is clos(ed|ing)$|another operation is (in progress|cancelling)$|released back to the pool$"
)
"""asyncpg's messages about a pool or connection that is closed, or is closing because the server went away."""

_LOST_NODE = re.compile(
    "failure on connection marked as essential|server closed the connection unexpectedly|connection not open"
    "|no connection to the server|SSL SYSCALL error|could not (receive data from|send data to) server"
)
"""How errors begin, called internal ones, by which a cluster tells that it lost a node within a statement."""

_OF_A_NODE = re.compile("^while executing command on ", re.MULTILINE)
"""In the context of an error that a node of a cluster had, and not the server that was asked."""


def classify(error: BaseException) -> Fault:
    """Return what an error means that was raised while the database was used.

    asyncpg raises InterfaceError both for a closed connection and for mistakes such as a wrong number
    of arguments; only its message tells them apart.
    """
    if isinstance(error, _AWAY):
        return Fault.AWAY
    if isinstance(error, RACES):
        return Fault.RACE
    if isinstance(error, asyncpg.InterfaceError) and _ENDED.search(str(error)):
        return Fault.AWAY
    if isinstance(error, asyncpg.InternalServerError) and _LOST_NODE.match(str(error)):
        return Fault.AWAY
    return Fault.BUG


def ends_server(error: BaseException) -> bool:
    """Return whether the server that was asked stops or is no primary any more; not, when it is a node behind it."""
    return isinstance(error, SERVER_ENDS) and not _OF_A_NODE.search(getattr(error, "context", None) or "")


def session_attributes(dsn: str) -> str | None:
    """Return which servers of a DSN may be used: those that take writes, unless it says so itself."""
    if "target_session_attrs" in dsn or "PGTARGETSESSIONATTRS" in os.environ:
        return None
    return "read-write"
