"""Databases that the service cannot work with: each ends the start with a sentence that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.config import Settings
from server.storage.migrate import load_migrations, migrate
from server.storage.pool import DatabaseError, check_database, open_pool, prepare_database
from server.storage.requirements import explain
from tests.conftest import PostgresServer

ROLE = "limited"


def settings_of(dsn: str) -> Settings:
    return Settings.model_validate({"dsn": dsn})


async def refusal(dsn: str) -> str:
    """Prepare a database that is to be refused, and return the sentence."""
    with pytest.raises(DatabaseError) as raised:
        await prepare_database(dsn, settings_of(dsn))
    return str(raised.value)


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def limited_dsn(database_dsn: str) -> AsyncIterator[str]:
    """Yield the DSN of a database of this release for a user without any rights on it."""
    await execute(database_dsn, f"CREATE ROLE {ROLE} LOGIN")
    parts = urlsplit(database_dsn)
    yield urlunsplit(parts._replace(netloc=f"{ROLE}@{parts.netloc.partition('@')[2]}"))
    await execute(database_dsn, f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_another_encoding_than_utf8_is_refused(postgres_server: PostgresServer, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    create = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    await execute(postgres_server.dsn(), create)
    sentence = await refusal(postgres_server.dsn(name))
    await postgres_server.drop(name)
    assert f"its encoding is {encoding}" in sentence
    assert "ENCODING 'UTF8' TEMPLATE template0" in sentence


async def test_a_read_only_database_is_refused(database_dsn: str) -> None:
    name = urlsplit(database_dsn).path[1:]
    await execute(database_dsn, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "its sessions are read-only: see default_transaction_read_only" in await refusal(database_dsn)


async def test_a_user_who_may_not_write_is_refused(database_dsn: str, limited_dsn: str) -> None:
    assert "permission denied for table schema_migrations" in await refusal(limited_dsn)
    await execute(database_dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")
    assert f"the user {ROLE} may not read and write attempts, batch_no, batches and " in await refusal(limited_dsn)


async def test_a_user_who_owns_nothing_but_may_write_is_taken(database_dsn: str, limited_dsn: str) -> None:
    """Fails when rights are asked for that the service does not use."""
    await execute(
        database_dsn,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}",
        f"REVOKE INSERT, UPDATE, DELETE ON schema_migrations, journal_epochs FROM {ROLE}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}",
    )
    assert await prepare_database(limited_dsn, settings_of(limited_dsn)) == ([], [])
    await check_database(limited_dsn, settings_of(limited_dsn))


async def test_a_user_who_may_not_create_tables_is_told_who_may(empty_dsn: str, limited_dsn: str) -> None:
    limited = urlunsplit(urlsplit(limited_dsn)._replace(path=urlsplit(empty_dsn).path))
    sentence = await refusal(limited)
    assert "run `mailing-server migrate` as the owner of the database, or grant this user the right" in sentence


async def test_a_dispatcher_needs_the_schema_of_its_release(empty_dsn: str) -> None:
    with pytest.raises(DatabaseError, match="has no schema yet: start a server on it first"):
        await check_database(empty_dsn, settings_of(empty_dsn))
    await migrate(empty_dsn)
    await check_database(empty_dsn, settings_of(empty_dsn))
    last = load_migrations()[-1].version
    await execute(empty_dsn, f"DELETE FROM schema_migrations WHERE version = '{last}'")
    with pytest.raises(DatabaseError, match=f"lacks schema version {last}"):
        await check_database(empty_dsn, settings_of(empty_dsn))
    await execute(empty_dsn, f"INSERT INTO schema_migrations VALUES ('{last}'), ('9999')")
    with pytest.raises(DatabaseError, match="has schema version 9999"):
        await check_database(empty_dsn, settings_of(empty_dsn))


@pytest.mark.parametrize("password", ["p@hidden", "p/hidden", "p#hidden", "p?hidden", "p@/hidden"])
async def test_a_password_that_is_not_encoded_is_named_and_not_shown(password: str) -> None:
    sentence = await refusal(f"postgresql://user:{password}@127.0.0.1:1/mailing")
    assert "percent-encoded: write @ as %40, / as %2F, # as %23" in sentence
    assert "hidden" not in sentence


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:p%40ss@127.0.0.1:1/mailing",
        "postgresql://user@h/d?application_name=a@b",
        "postgresql://h:5432/d?user=a@b",
        "postgresql://[::1]/d?user=a@b",
        "postgresql:///d?host=/run&user=a@b",
    ],
)
def test_a_dsn_that_is_right_gets_the_reason_of_its_failure(dsn: str) -> None:
    assert explain(ConnectionRefusedError("refused."), dsn) == "refused"


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DuplicatePreparedStatementError("prepared statement exists"),
        asyncpg.InvalidSQLStatementNameError("no such statement"),
        asyncpg.ProtocolViolationError("unsupported startup parameter: jit"),
    ],
)
def test_errors_of_poolers_name_the_setting(error: asyncpg.PostgresError) -> None:
    assert "set MAILING_STATEMENT_CACHE_SIZE=0" in explain(error, "postgresql://h/d")


async def test_without_a_pooler_no_second_connection_is_made(database_dsn: str) -> None:
    async with open_pool(database_dsn, settings_of(database_dsn)) as pool:
        assert pool.get_size() == 1


async def buckets_of(dsn: str) -> list[int]:
    """Return how many buckets each table has a row for."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = ("buckets", "client_change_seqs", "journal_floors", "log_seqs", "log_floors")
        return [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    finally:
        await connection.close()


async def test_the_number_of_buckets_is_fixed_with_the_first_migration(empty_dsn: str) -> None:
    wanted = Settings.model_validate({"dsn": empty_dsn, "buckets": 5})
    await prepare_database(empty_dsn, wanted)
    await prepare_database(empty_dsn, settings_of(empty_dsn))
    await check_database(empty_dsn, wanted)
    assert await buckets_of(empty_dsn) == [5] * 5
    other = Settings.model_validate({"dsn": empty_dsn, "buckets": 7})
    for use in (prepare_database, check_database):
        with pytest.raises(DatabaseError, match="was set up with 5 buckets, not with the 7 of MAILING_BUCKETS"):
            await use(empty_dsn, other)
    assert await buckets_of(empty_dsn) == [5] * 5


async def test_an_installation_keeps_the_buckets_that_it_has(empty_dsn: str, database_dsn: str) -> None:
    """By itself a database gets 16, whichever release set it up."""
    await prepare_database(database_dsn, settings_of(database_dsn))
    assert await buckets_of(database_dsn) == [16] * 5
    with pytest.raises(DatabaseError, match="was set up with 16 buckets"):
        await prepare_database(database_dsn, Settings.model_validate({"dsn": database_dsn, "buckets": 64}))
