"""Brings a database to the schema of this release.

Migrations are numbered SQL files in dbmate's format, and `schema_migrations` is dbmate's
table, so operators may use that tool instead. Each file is one transaction; replicas that
start together wait for one another. Never undoes anything: the down sections are for operators.

A file that changes a table in use gives up when it does not get its lock at once, because everybody else would
wait behind it; it is tried again, less and less often.

A file goes to the server in one piece. Where a distributed table is changed in it, Citus hands the whole piece to the
nodes, which refuse it; so such changes stand in a DO block, where each is a statement of its own.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, repeat

import asyncpg

from server.embedded_postgres import OLDEST_MAJOR
from server.storage.faults import session_attributes

_NO_LIMIT = 24 * 3600.0  # seconds: a migration of a large table may take long
LOCK = 0x6D61696C696E67  # "mailing"
"""The advisory lock that a change of the schema takes."""

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between two tries of a file that gets no lock
_FILE = re.compile(r"(\d+).*\.sql")
_SECTION = re.compile(r"^-- migrate:(up|down)[ \t]*(.*)$", re.MULTILINE)


log = logging.getLogger(__name__)


class MigrationError(Exception):
    """The database cannot be brought to this release's schema; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its version (the leading digits of its name) and its up section."""

    version: str
    file: str
    script: str


async def migrate(database: str | asyncpg.Connection, timeout: float = 10.0, buckets: int | None = None) -> list[str]:
    """Apply what is missing and return the versions it applied, oldest first.

    An empty database gets so many `buckets`, 16 by itself; later they cannot be changed, see `require_buckets`.

    `database` is a DSN, to be connected to within `timeout` seconds, or an open connection
    that is in no transaction. Safe at any number
    of callers at once, also through a pooler in transaction mode. Raise MigrationError for
    a server that is too old, a schema newer than this release, or a statement that fails;
    errors of connecting pass through.
    """
    if not isinstance(database, str):
        return await _migrate(database, buckets)
    connection = await asyncpg.connect(
        database, statement_cache_size=0, timeout=timeout, target_session_attrs=session_attributes(database)
    )
    try:
        return await _migrate(connection, buckets)
    finally:
        await connection.close(timeout=timeout)


async def require_schema(connection: asyncpg.Connection) -> None:
    """Raise MigrationError unless the database has exactly the schema of this release."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        raise MigrationError(
            "The database has no schema yet: start a server on it first, or run `mailing-server migrate`."
        )
    migration = _next(load_migrations(), await _applied(connection))
    if migration is not None:
        raise MigrationError(
            f"The database lacks schema version {migration.version}, which this release needs: start a server of this "
            "release on it first, or run `mailing-server migrate`."
        )


def load_migrations(package: str = "server.storage") -> list[Migration]:
    """Return the migrations in the `migrations` folder of `package`, in order. Raise ValueError for a bad file."""
    folder = files(package).joinpath("migrations")
    found = [
        Migration(match[1], entry.name, up_section(entry.read_text(encoding="utf-8")))
        for entry in folder.iterdir()
        if (match := _FILE.fullmatch(entry.name))
    ]
    if len({migration.version for migration in found}) != len(found):
        raise ValueError(f"{folder}: a version occurs twice")
    return sorted(found, key=lambda migration: migration.version)


def up_section(text: str) -> str:
    """Return what stands between `-- migrate:up` and `-- migrate:down`. Raise ValueError where that is unclear."""
    sections = list(_SECTION.finditer(text))
    if not sections or sections[0][1] != "up" or [section[1] for section in sections[1:]] not in ([], ["down"]):
        raise ValueError("a migration has one '-- migrate:up' and after it at most one '-- migrate:down'")
    if sections[0][2].strip():
        raise ValueError(f"options of '-- migrate:up' are not supported: {sections[0][2].strip()}")
    return text[sections[0].end() : sections[1].start() if len(sections) > 1 else None]


async def _migrate(connection: asyncpg.Connection, buckets: int | None) -> list[str]:
    migrations = load_migrations()
    major = connection.get_server_version().major
    if major < OLDEST_MAJOR:
        raise MigrationError(
            f"The database server is PostgreSQL {major}, but version {OLDEST_MAJOR} or later is needed: upgrade it, or "
            "point MAILING_DSN at another."
        )
    applied = []
    while (migration := await _apply_patiently(connection, migrations, buckets)) is not None:
        applied.append(migration.version)
    return applied


async def _apply_patiently(
    connection: asyncpg.Connection, migrations: list[Migration], buckets: int | None
) -> Migration | None:
    """Apply the oldest missing migration, as soon as its locks are free. Return None when nothing is missing."""
    for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
        try:
            return await _apply_next(connection, migrations, buckets)
        except asyncpg.LockNotAvailableError:
            log.info("a migration waits for a table that others are using, trying again in %g s", pause)
            await asyncio.sleep(pause)
    raise AssertionError("the pauses do not end")


async def _apply_next(
    connection: asyncpg.Connection, migrations: list[Migration], buckets: int | None
) -> Migration | None:
    """Apply the oldest missing migration in one transaction. Return None when nothing is missing."""
    migration = None
    try:
        async with connection.transaction():
            # Bound to the transaction, as poolers hand the session to somebody else after it.
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute("SET LOCAL lock_timeout = 0")
            await connection.execute("SELECT set_config('mailing.buckets', $1, true)", str(buckets or ""))
            await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})", timeout=_NO_LIMIT)
            migration = _next(migrations, await _applied(connection))
            if migration is not None:
                await connection.execute(migration.script, timeout=_NO_LIMIT)
                await connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", migration.version)
                # Replicas of an older release stop claiming as soon as they know.
                await connection.execute("NOTIFY mailing")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"The schema cannot be brought up to date, {error}: run `mailing-server migrate` as the owner of the "
            "database, or grant this user the right to change it (GRANT CREATE ON SCHEMA)."
        ) from error
    except asyncpg.LockNotAvailableError:
        raise
    except asyncpg.PostgresError as error:
        place = migration.file if migration else "before the first migration"
        raise MigrationError(f"The schema cannot be brought up to date ({place}): {error}.") from error
    return migration


async def _applied(connection: asyncpg.Connection) -> set[str]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        await connection.execute("CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY)")
    return {row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")}


def _next(migrations: list[Migration], applied: set[str]) -> Migration | None:
    unknown = applied - {migration.version for migration in migrations}
    if unknown:
        raise MigrationError(
            f"The database has schema version {max(unknown)}, but this release knows none after "
            f"{migrations[-1].version}: install the release that made it, or a newer one."
        )
    return next((migration for migration in migrations if migration.version not in applied), None)
