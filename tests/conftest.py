"""A real Postgres for all tests: one server per session, one database per test.

The schema is migrated once into a template; a test's database is a copy of it. Temporary files
are in memory where there is room: a database has some 400, and copying them on a disk costs
five times as much.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.config import Settings
from server.embedded_postgres import EmbeddedPostgres, binaries
from server.storage.migrate import migrate
from server.storage.pool import open_pool

TEMPLATE = "template_mailing"
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}
"""Nothing here outlives the session, so nothing needs to reach the disk."""

MEMORY, ROOM = Path("/dev/shm"), 4 << 30
"""Where files are in memory, and the bytes that must be free for the sessions of two workers."""

LONGEST = (
    "test_a_day.py",
    "test_documents.py",
    "test_machine.py",
    "test_matching.py",
    "test_simulation.py",
    "test_timetables.py",
)
"""Files of the tests that take longest: begun last, they would keep one worker busy while the others wait."""

_numbers = count(1)


def pytest_configure() -> None:
    """Make pytest's temporary folders in memory unless set otherwise; let children hear Ctrl-C and hang-ups.

    A shell's background job ignores both, and so would every program that it starts.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests begin first, and leave the others in their order."""
    items.sort(key=lambda one: one.path.name not in LONGEST)


class PostgresServer:
    """The session's server: makes databases and names them."""

    def __init__(self, dsn: str) -> None:
        self._dsn = urlsplit(dsn)

    def dsn(self, database: str = "postgres") -> str:
        return urlunsplit(self._dsn._replace(path=f"/{database}"))

    async def create(self, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"test_{next(_numbers)}"
        # Copying files takes a fifth of writing every page to the log; fsync is off, so its checkpoints cost nothing.
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    async def drop(self, name: str) -> None:
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def prepare(self) -> None:
        await self._execute(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.dsn(TEMPLATE))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No test depends on the settings of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MAILING_", "POSTGRES_", "PG", "OAUTH")) or name == "AUTHTOKEN":
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take away what a program that ran within a test has set for all logs: its output is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if root.handlers != handlers:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Yield a Postgres server of the session's own, of the SERVER_PROGRAMS if set, with a migrated template."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        if programs := os.environ.get("SERVER_PROGRAMS"):
            patch.setattr(binaries, "folders", lambda: iter([Path(programs)]))
        postgres = EmbeddedPostgres(folder, FAST)
        server = PostgresServer(postgres.start())
        try:
            with asyncio.Runner() as runner:
                runner.run(server.prepare())
            yield server
        finally:
            postgres.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def empty_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Yield the DSN of a database without any tables."""
    name = await postgres_server.create()
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest.fixture
async def database_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Yield the DSN of a fresh database with the schema of this release."""
    name = await postgres_server.create(TEMPLATE)
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on `database_dsn`, set up as the service's own."""
    async with open_pool(database_dsn, Settings()) as pool:
        yield pool
