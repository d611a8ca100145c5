"""Migrations against a real server, alone and all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.storage import migrate as module
from server.storage.migrate import Migration, MigrationError, load_migrations, migrate


@pytest.fixture
async def connection(empty_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_dsn)
    yield connection
    await connection.close()


async def versions(connection: asyncpg.Connection) -> list[str]:
    return [row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations ORDER BY 1")]


async def test_every_migration_is_applied_once(empty_dsn: str, connection: asyncpg.Connection) -> None:
    known = [migration.version for migration in load_migrations()]
    assert await migrate(empty_dsn) == known
    assert await migrate(connection) == []
    assert await versions(connection) == known


async def test_eight_migrators_on_an_empty_database_share_the_work(
    empty_dsn: str, connection: asyncpg.Connection
) -> None:
    known = [migration.version for migration in load_migrations()]
    applied = await asyncio.gather(*(migrate(empty_dsn) for _ in range(8)))
    assert sorted(version for one in applied for version in one) == known
    assert await versions(connection) == known


async def test_the_down_section_is_not_executed(empty_dsn: str, connection: asyncpg.Connection) -> None:
    await migrate(empty_dsn)
    assert await connection.fetchval("SELECT to_regclass('mailings')") == "mailings"
    assert await connection.fetchval("SELECT count(*) FROM buckets") == 16


async def test_the_table_of_versions_is_dbmates(empty_dsn: str, connection: asyncpg.Connection) -> None:
    await migrate(empty_dsn)
    columns = await connection.fetch(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_name = 'schema_migrations'"
    )
    assert [tuple(column) for column in columns] == [("version", "character varying", "NO")]
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO schema_migrations SELECT version FROM schema_migrations")


async def test_a_table_that_dbmate_made_is_continued(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)")
    await connection.execute(load_migrations()[0].script)
    await connection.execute("INSERT INTO schema_migrations VALUES ($1)", load_migrations()[0].version)
    assert load_migrations()[0].version not in await migrate(connection)


async def test_an_unknown_newer_schema_is_refused_and_left_alone(
    empty_dsn: str, connection: asyncpg.Connection
) -> None:
    await migrate(empty_dsn)
    await connection.execute("INSERT INTO schema_migrations VALUES ('9999')")
    before = await versions(connection)
    with pytest.raises(MigrationError, match=r"schema version 9999.*install"):
        await migrate(empty_dsn)
    assert await versions(connection) == before


async def test_a_failing_statement_undoes_its_whole_file(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [
        Migration("1", "1_good.sql", "CREATE TABLE kept ()"),
        Migration("2", "2_bad.sql", "CREATE TABLE undone (); CREATE TABLE kept (); SELECT 1"),
    ]
    monkeypatch.setattr(module, "load_migrations", lambda: broken)
    with pytest.raises(MigrationError, match=r"\(2_bad\.sql\): relation \"kept\" already exists"):
        await migrate(connection)
    assert await versions(connection) == ["1"]
    assert await connection.fetchval("SELECT to_regclass('undone')") is None


async def test_operator_codes_that_updates_emptied_are_repaired(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running mailings learn of the repaired clients, and nobody else is touched."""
    release = load_migrations()
    monkeypatch.setattr(module, "load_migrations", lambda: release[:5])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO clients (bucket, id, phone, operator_code, timezone, updated_at) VALUES"
        " (1, 17, '79160000001', '', 'UTC', 'epoch'), (2, 18, '79160000002', '999', 'UTC', 'epoch'),"
        " (2, 34, '4917012345678', '', 'UTC', 'epoch')"
    )
    monkeypatch.setattr(module, "load_migrations", lambda: release)
    await migrate(connection)
    codes = await connection.fetch("SELECT operator_code, version FROM clients ORDER BY id")
    assert [tuple(row) for row in codes] == [("916", 2), ("999", 1), ("", 1)]
    changes = await connection.fetch("SELECT bucket, seq, client_ids FROM client_changes")
    assert [tuple(row) for row in changes] == [(1, 1, [17])]
    assert await connection.fetchval("SELECT seq FROM client_change_seqs WHERE bucket = 1") == 1


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE a (b text DEFAULT ';'); -- one; comment\nINSERT INTO a VALUES ($$;$$), ('$1')",
        "DO $x$ BEGIN PERFORM 1; END $x$;",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT f();",
    ],
)
async def test_any_script_that_postgres_reads_is_executed(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(module, "load_migrations", lambda: [Migration("1", "1.sql", script)])
    assert await migrate(connection) == ["1"]


async def test_a_server_that_is_too_old_is_refused(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OLDEST_MAJOR", connection.get_server_version().major + 1)
    with pytest.raises(MigrationError, match=r"is PostgreSQL \d+, but version \d+ or later is needed"):
        await migrate(connection)
    assert await connection.fetchval("SELECT to_regclass('schema_migrations')") is None
