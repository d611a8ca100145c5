"""What a database must offer before it is used: UTF-8, the right to write, a server behind every session.

Each check raises `UnfitDatabase` with one sentence that says what is wrong and what to do. They are
made once, at the start of a process; what goes wrong later is handled where it happens.
"""

from __future__ import annotations

import re

import asyncpg

from server.storage.migrate import Migration, load_migrations
from server.storage.queries import load_queries

_SQL = load_queries("database.sql")

_CREATED = re.compile(r"^CREATE (?:TABLE|SEQUENCE) (\w+)", re.MULTILINE)
_ONLY_READ = ("schema_migrations", "journal_epochs")
"""Tables that nobody but a migration writes."""

_TRANSACTION_POOLING = (
    "a pooler in transaction mode stands before it, which loses prepared statements: set "
    "MAILING_STATEMENT_CACHE_SIZE=0, or point the DSN at the server itself"
)
_POOLER_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
_SESSION_PARAMETERS = (
    "a pooler stands before it that rejects session parameters: set MAILING_STATEMENT_CACHE_SIZE=0, or, in session "
    "mode, ignore_startup_parameters = jit in its settings"
)
_POOLER_COMPLAINT = "unsupported startup parameter"
"""What PgBouncer says of session parameters that it does not pass on."""

_AMBIGUOUS = re.compile(r"\w+://([^@/?#]*)([@/?#])(.*)@", re.DOTALL)


class UnfitDatabase(Exception):
    """The database cannot be used as it is; the message is the end of a sentence, without its full stop."""


async def require_writable_utf8(connection: asyncpg.Connection) -> None:
    """Raise UnfitDatabase for another encoding than UTF-8, and for a server or user that only reads."""
    row = await connection.fetchrow(*_SQL["describe_server"].bind())
    if row["encoding"] != "UTF8":
        raise UnfitDatabase(
            f"its encoding is {row['encoding']}, which cannot hold every text: create one with "
            "CREATE DATABASE mailing ENCODING 'UTF8' TEMPLATE template0"
        )
    if row["standby"]:
        raise UnfitDatabase("it is a standby, which cannot be written: point the DSN at the primary")
    if row["read_only"]:
        raise UnfitDatabase(
            f"its sessions are read-only: see default_transaction_read_only of the server, the database and the user "
            f"{row['user']}"
        )


async def require_rights(connection: asyncpg.Connection) -> None:
    """Raise UnfitDatabase when the user may not use the tables and sequences of this release."""
    names = sorted({"schema_migrations"}.union(*(_created(one) for one in load_migrations())))
    rows = await connection.fetch(*_SQL["list_forbidden_tables"].bind(names=names, only_read=list(_ONLY_READ)))
    if rows:
        few = ", ".join(row["name"] for row in rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        raise UnfitDatabase(
            f"the user {rows[0]['user']} may not read and write {few}: GRANT SELECT, INSERT, UPDATE, DELETE on its "
            "tables and USAGE on its sequences, or connect as their owner"
        )


async def require_buckets(connection: asyncpg.Connection, wanted: int | None) -> None:
    """Raise UnfitDatabase when the database was set up with another number of buckets than is wanted."""
    if wanted is None:
        return
    found = await connection.fetchval(*_SQL["count_buckets"].bind())
    if found != wanted:
        raise UnfitDatabase(
            f"it was set up with {found} buckets, not with the {wanted} of MAILING_BUCKETS, and every id of a client "
            f"depends on them: set {found}, or nothing; another number needs another database"
        )


async def require_sessions(pool: asyncpg.Pool) -> None:
    """Raise UnfitDatabase when sessions are not bound to a server process, as behind a pooler in transaction mode."""
    async with pool.acquire() as first:
        backend = await first.fetchval(*_SQL["backend_pid"].bind())
        if backend == first.get_server_pid():
            return
        # Some pooler stands between. In transaction mode a second session gets the server process of the first.
        async with pool.acquire() as second, second.transaction():
            other = await second.fetchval(*_SQL["backend_pid"].bind())
            if backend == other or backend != await first.fetchval(*_SQL["backend_pid"].bind()):
                raise UnfitDatabase(_TRANSACTION_POOLING)


def explain(error: Exception, dsn: str) -> str:
    """Return why a connection could not be made or used, as the end of a sentence; '' when the error says nothing."""
    if _is_ambiguous(dsn):  # the error may quote a part of the password
        return (
            "its user, password or name contains a character that must be percent-encoded: write @ as %40, / as %2F, "
            "# as %23, ? as %3F"
        )
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "every server of it is read-only, or not what target_session_attrs asks for"
    if _POOLER_COMPLAINT in str(error):
        return _SESSION_PARAMETERS
    if isinstance(error, _POOLER_ERRORS):
        return _TRANSACTION_POOLING
    return " ".join(str(error).split()).rstrip(".")


def _is_ambiguous(dsn: str) -> bool:
    """Return whether the DSN has an @ behind a character that ends the user and password before it."""
    match = _AMBIGUOUS.match(dsn)
    if match is None:
        return False
    head, end, between = match.groups()
    if end == "@":
        return "?" not in between
    return ":" in head and not head.endswith("]") and not head.rpartition(":")[2].isdecimal()


def _created(migration: Migration) -> set[str]:
    return {*_CREATED.findall(migration.script)}
