"""The commands of docs/operating.md, carried out: what comes back, and what watchers and dispatchers are told."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import asyncpg
import grpc

from mailing.v1.delivery_service_pb2 import WatchMessagesRequest, WatchMessagesResponse
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from server.config import Settings
from server.embedded_postgres.binaries import choose_binaries
from server.storage.pool import open_pool
from tests.integration.api.calls import refused
from tests.support.api import serving
from tests.support.documents import page, section
from tests.support.ledger import add_clients, audit

PAGE = section(page("operating"), "## Back up and restore")


def shell(command: str, dsn: str, folder: Path) -> None:
    (line,) = re.findall(rf"^{command} .*$", PAGE, re.MULTILINE)
    programs = str(choose_binaries(folder).folder)
    environment = {**os.environ, "MAILING_DSN": dsn, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", "-c", line], cwd=folder, env=environment, check=True, timeout=120)


async def token_of(pool: asyncpg.Pool, token: str = "") -> str:
    """Watch messages of all mailings; return the first token that comes."""
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        call = DeliveryServiceStub(channel).WatchMessages(WatchMessagesRequest(resume_token=token), timeout=30)
        first = await call.read()
        assert isinstance(first, WatchMessagesResponse)
        return first.resume_token


async def test_a_restored_database_refuses_old_tokens_and_sends_nothing_yet(
    pool: asyncpg.Pool, database_dsn: str, empty_dsn: str, tmp_path: Path
) -> None:
    """Fails when the epoch stays what it was: the old token is then taken."""
    clients = await add_clients(pool, 20)
    token = await token_of(pool)
    assert await token_of(pool, token)
    shell("pg_dump", database_dsn, tmp_path)
    shell("pg_restore", empty_dsn, tmp_path)
    (statements,) = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    async with open_pool(empty_dsn, Settings()) as restored:
        await restored.execute(statements)
        assert await restored.fetchval("SELECT count(*) FROM clients") == len(clients)
        assert await audit(restored) == []
        assert await restored.fetchval("SELECT stopped FROM dispatch_settings")
        with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
            await token_of(restored, token)
