"""The cluster that CLUSTER_DSN names: an empty database on the coordinator of a Citus cluster, as a superuser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.clients.conftest import variables
from tests.e2e.conftest import SERVER_PROGRAM, environment
from tests.faults.conftest import endpoint, start_service

__all__ = ["endpoint", "start_service", "variables"]


@pytest.fixture(scope="session")
def cluster_dsn() -> str:
    """Return the DSN of the cluster, whose tables are laid out."""
    dsn = os.environ.get("CLUSTER_DSN")
    if not dsn:
        pytest.skip("CLUSTER_DSN names no cluster: make cluster-check DSN=...")
    program = [*SERVER_PROGRAM, "migrate", "--distribute"]
    laid_out = subprocess.run(program, env=environment(MAILING_DSN=dsn), capture_output=True, text=True, check=False)
    assert laid_out.returncode == 0, laid_out.stderr
    return dsn


@pytest.fixture
def database_dsn(cluster_dsn: str) -> str:
    """Take the cluster for what other tests make a database for."""
    return cluster_dsn


@pytest.fixture
async def coordinator(cluster_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to the coordinator."""
    connection = await asyncpg.connect(cluster_dsn, statement_cache_size=0)
    yield connection
    await connection.close()
