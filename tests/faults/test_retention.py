"""A service is killed while it writes messages to files, removes them, or deletes a mailing: another one ends it."""

from __future__ import annotations

import asyncio
import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mailing.v1.mailing_service_pb2 import DeleteMailingRequest, DeleteMailingResponse
from tests.faults.conftest import Service, StartService
from tests.faults.mailings import completed, prepare
from tests.support.eventually import eventually_sync

COUNT = 2_000
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Psql:
    """A session that a test without an event loop holds."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(dsn))

    def execute(self, statement: str) -> None:
        self._runner.run(self._connection.execute(statement))

    def value(self, query: str, *arguments: Any) -> Any:
        return self._runner.run(self._connection.fetchval(query, *arguments))

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()


@pytest.fixture
def psql(database_dsn: str) -> Iterator[Psql]:
    session = Psql(database_dsn)
    yield session
    session.close()


@contextmanager
def holding(psql: Psql, lock: str) -> Iterator[None]:
    """Hold the locks of a statement while the block runs."""
    holder = Psql(psql.dsn)
    holder.execute(f"BEGIN; {lock}")
    try:
        yield
    finally:
        holder.close()


def sent(start_service: StartService, psql: Psql) -> int:
    """Return a mailing that was over, long ago, when its service ended."""
    service = start_service()
    mailing_id = prepare(service.client, COUNT)
    completed(service.client, mailing_id)
    assert service.stop() == 0
    psql.execute("UPDATE mailings SET updated_at = now() - interval '40 days'")
    return mailing_id


def count_of(psql: Psql, mailing_id: int) -> int:
    return int(psql.value("SELECT count(*) FROM messages WHERE mailing_id = $1", mailing_id))


def kill_when_blocked(psql: Psql, service: Service) -> None:
    eventually_sync(lambda: psql.value(BLOCKED))
    service.kill()


def test_a_service_killed_while_it_writes_files_removes_nothing(
    start_service: StartService, psql: Psql, tmp_path: Path
) -> None:
    """Fails when a file gets its name before it is whole, or messages go before their files are there."""
    mailing_id = sent(start_service, psql)
    settings = {"MAILING_MESSAGE_RETENTION": "30d", "MAILING_MESSAGE_ARCHIVE_DIR": str(tmp_path / "archive")}
    with holding(psql, "LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE"):
        service = start_service(**settings)
        whole = tmp_path / "archive" / f"mailing-{mailing_id}-messages.csv.gz"
        eventually_sync(whole.exists)
        kill_when_blocked(psql, service)
        assert count_of(psql, mailing_id) == COUNT
        assert rows_of(whole) == COUNT
        assert not whole.with_name(f"mailing-{mailing_id}-attempts.csv.gz").exists()
    service = start_service(**settings)
    eventually_sync(lambda: count_of(psql, mailing_id), lambda count: count == 0)
    assert rows_of(whole) == COUNT
    assert whole.with_name(f"mailing-{mailing_id}-attempts.csv.gz").exists()
    assert service.client.get_mailing(mailing_id).progress.delivered == COUNT
    assert list(service.client.list_messages(mailing_id=mailing_id)) == []


def rows_of(path: Path) -> int:
    with gzip.open(path, "rt", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def test_a_service_killed_while_it_removes_messages_is_taken_over(start_service: StartService, psql: Psql) -> None:
    """Its partition is in use, so it goes step by step; the lock stops it at one bucket."""
    mailing_id = sent(start_service, psql)
    with holding(psql, "SELECT FROM messages WHERE bucket = 9 FOR UPDATE"):
        service = start_service(MAILING_MESSAGE_RETENTION="30d")
        eventually_sync(lambda: count_of(psql, mailing_id), lambda count: count < COUNT)
        kill_when_blocked(psql, service)
    assert 0 < count_of(psql, mailing_id) < COUNT
    start_service()
    eventually_sync(lambda: psql.value("SELECT count(*) FROM removals"), lambda count: count == 0)
    assert count_of(psql, mailing_id) == 0


def test_a_deletion_goes_on_after_its_service_was_killed(start_service: StartService, psql: Psql) -> None:
    mailing_id = sent(start_service, psql)
    service = start_service()
    with holding(psql, "SELECT FROM messages WHERE bucket = 9 FOR UPDATE"):
        call = service.client.mailings.DeleteMailing.future(DeleteMailingRequest(mailing_id=mailing_id))
        eventually_sync(lambda: count_of(psql, mailing_id), lambda count: count < COUNT)
        kill_when_blocked(psql, service)
        call.cancel()
    assert 0 < count_of(psql, mailing_id) < COUNT
    other = start_service()
    eventually_sync(lambda: psql.value("SELECT count(*) FROM removals"), lambda count: count == 0)
    assert psql.value("SELECT count(*) FROM ledger") == 0
    assert (
        other.client.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=mailing_id, allow_missing=True))
        == DeleteMailingResponse()
    )
