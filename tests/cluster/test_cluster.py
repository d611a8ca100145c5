"""On a given cluster: every statement, every method, retries, kills and lost nodes, compared with the endpoint.

`make cluster-check DSN=...` runs it, in this order: the scenario begins on an empty database.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from mailing import MailingClient, new_client, new_mailing
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import RetryPolicy
from mailing.v1.message_pb2 import Message
from server.storage.distribution import problems
from server.storage.migrate import Migration, load_migrations
from server.storage.queries import load_queries
from tests.clients.languages import PYTHON
from tests.clients.transcripts import differences, transcript
from tests.e2e.conftest import REJECTED, SERVER_PROGRAM, Endpoint, environment
from tests.faults.conftest import StartService
from tests.faults.mailings import COUNT, completed, finish
from tests.support.eventually import eventually_sync
from tests.support.project import ROOT
from tests.support.statements import FILES, SETS_UP

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VALUES: dict[str, Any] = {
    **dict.fromkeys(("int2", "int4", "int8"), 3),
    "bool": True,
    "bytea": b"x",
    "date": NOW.date(),
    "float8": 1.0,
    "interval": timedelta(seconds=5),
    "jsonb": "{}",
    "text": "79990000000",
    "time": time(9),
    "timestamp": NOW.replace(tzinfo=None),
    "timestamptz": NOW,
    "uuid": UUID(int=1),
}
"""A value for every type of a parameter."""

NAMED = {
    **dict.fromkeys(("timezone", "timezones"), "UTC"),
    **dict.fromkeys(("client_ids", "durations"), "{3,4}"),
    "condition": "true",
    "days": "2026-01-01",
}
"""Texts of parameters that mean something else than words: without them a node would not come to run the statement."""

REFUSED = (asyncpg.FeatureNotSupportedError, asyncpg.InternalServerError, asyncpg.SyntaxOrAccessError)
"""How a cluster says that it cannot run a statement, whatever its values are."""

CUT = """
SELECT result FROM run_command_on_workers($$
  SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
$$)
"""
"""Ends all sessions of the workers, as a lost node does."""


FIRST_LAID_OUT = "0029"
"""The newest migration of the first release that could lay its tables out."""

MANY = [str(70_100_000_000 + n) for n in range(COUNT)]
"""Phones of a mailing that is large enough to be interrupted."""


def value_of(parameter: asyncpg.Type, name: str) -> Any:
    """Return a value for a parameter: of positions one for each bucket, of other numbers two different ones."""
    kind = parameter.name.removesuffix("[]")
    value = NAMED.get(name, VALUES[kind]) if kind == "text" else VALUES[kind]
    if not parameter.name.endswith("[]"):
        return value
    if name.endswith("positions"):
        return [value] * 256
    return [value, value + 1] if kind in ("int2", "int4", "int8") else [value] * 2


@pytest.mark.parametrize("file", FILES)
async def test_every_statement_is_taken(coordinator: asyncpg.Connection, file: str) -> None:
    """Data may be refused, since the values are made up; a way to say it must not be."""
    refused = {}
    transaction = coordinator.transaction()
    await transaction.start()
    for name, query in load_queries(file).items():
        statement = await coordinator.prepare(query.text)
        values = [value_of(*both) for both in zip(statement.get_parameters(), query.names, strict=True)]
        savepoint = coordinator.transaction()
        await savepoint.start()
        try:
            await coordinator.execute(query.text, *values)
        except REFUSED as error:
            refused[name] = str(error)
        except asyncpg.PostgresError:
            pass
        if name in SETS_UP and name not in refused:
            await savepoint.commit()
        else:
            await savepoint.rollback()
    await transaction.rollback()
    assert refused == {}


@pytest.mark.timeout(900)
async def test_every_method_answers_as_on_one_server(variables: dict[str, str], tmp_path: Path) -> None:
    words = await asyncio.to_thread(PYTHON.build, tmp_path)
    found = differences(await transcript(words, variables, tmp_path), variables)
    assert not found, "\n".join(map(str, found))


async def test_a_database_that_is_laid_out_is_upgraded(coordinator: asyncpg.Connection, cluster_dsn: str) -> None:
    """From the schema of the first release that lays tables out: by the migrations alone, and for good."""
    for migration in reversed(load_migrations()):
        if migration.version > FIRST_LAID_OUT:
            async with coordinator.transaction():
                await coordinator.execute(down_section(migration))
                await coordinator.execute("DELETE FROM schema_migrations WHERE version = $1", migration.version)
    assert (await migrated(cluster_dsn)).startswith("Applied 0030, ")
    assert await problems(coordinator) == []
    assert await migrated(cluster_dsn, "--distribute") == "The schema is up to date.\nAll tables are laid out.\n"


async def migrated(dsn: str, *options: str) -> str:
    """Return what `mailing-server migrate` writes."""
    program = [*SERVER_PROGRAM, "migrate", *options]
    return await asyncio.to_thread(subprocess.check_output, program, env=environment(MAILING_DSN=dsn), text=True)


def down_section(migration: Migration) -> str:
    """Return what takes a migration back, which is nothing for one that replaced functions."""
    text = (ROOT / "server" / "storage" / "migrations" / migration.file).read_text()
    return text.partition("-- migrate:down")[2] + "\nSELECT 1;"


@pytest.mark.timeout(600)
def test_a_retry_puts_back_what_failed(start_service: StartService, endpoint: Endpoint, cluster_dsn: str) -> None:
    client = start_service(MAILING_DSN=cluster_dsn).client
    # Not so many that the endpoint would be taken for one that refuses everybody.
    phones = [f"7{n:04d}{REJECTED}" for n in range(16)] + [f"7{n:04d}000000" for n in range(984)]
    mailing = begun(client, phones, retry=RetryPolicy(max_attempts=1))
    completed(client, mailing)
    assert counts(client, mailing) == (984, 16, 0)
    assert client.retry_mailing(mailing, [Message.STATUS_FAILED]) == 16
    completed(client, mailing)
    assert counts(client, mailing) == (984, 16, 0)
    assert findings(cluster_dsn) == []


@pytest.mark.timeout(600)
def test_a_killed_service_loses_nothing(start_service: StartService, endpoint: Endpoint, cluster_dsn: str) -> None:
    settings = {"MAILING_DSN": cluster_dsn, "MAILING_ENDPOINT_TIMEOUT": "2", "MAILING_LEASE": "11"}
    first, second = start_service(**settings), start_service(**settings)
    before = len(endpoint.received())
    mailing = begun(first.client, MANY)
    eventually_sync(lambda: len(endpoint.received()) > before + len(MANY) // 4)
    first.kill()
    ids = finish(second.client, mailing)
    assert len(ids) == len(MANY)
    assert ids <= {one["id"] for one in endpoint.received()}
    assert findings(cluster_dsn) == []


@pytest.mark.timeout(600)
async def test_nobody_gets_two_when_nodes_are_lost(
    start_service: StartService, endpoint: Endpoint, cluster_dsn: str, coordinator: asyncpg.Connection
) -> None:
    client = (await asyncio.to_thread(start_service, MAILING_DSN=cluster_dsn)).client
    mailing = await asyncio.to_thread(begun, client, MANY, max_rate=len(MANY) / 10)
    for _ in range(5):
        seen = len(await asyncio.to_thread(endpoint.received))
        await coordinator.fetch(CUT)
        await asyncio.to_thread(_received_more, endpoint, seen)
    ids = await asyncio.to_thread(finish, client, mailing)
    received = Counter(one["id"] for one in await asyncio.to_thread(endpoint.received))
    assert len(ids) == len(MANY)
    assert {id_: received[id_] for id_ in ids} == dict.fromkeys(ids, 1)
    assert await asyncio.to_thread(findings, cluster_dsn) == []


def begun(client: MailingClient, phones: Sequence[str], **fields: Any) -> int:
    """Import clients of a tag of their own and begin a mailing to them; return its id."""
    tag = uuid4().hex
    client.import_clients(new_client(phone=phone, timezone="UTC", tag=tag) for phone in phones)
    return client.create_mailing(new_mailing("Hello", snapshot=True, filter=ClientFilter(tags=[tag]), **fields)).id


def _received_more(endpoint: Endpoint, seen: int) -> None:
    eventually_sync(lambda: len(endpoint.received()) > seen)


def counts(client: MailingClient, mailing_id: int) -> tuple[int, int, int]:
    """Return how many messages of a mailing were delivered, failed, and are pending."""
    progress = client.get_mailing(mailing_id).progress
    return progress.delivered, progress.failed, progress.pending


def findings(dsn: str) -> list[Any]:
    """Return what `mailing-server verify` finds."""
    program = [*SERVER_PROGRAM, "verify", "--json"]
    told = subprocess.run(program, env=environment(MAILING_DSN=dsn), capture_output=True, text=True, check=False)
    assert told.returncode in (0, 1), told.stderr
    return list(json.loads(told.stdout)["findings"])
