"""A database with the clients of the model."""

from __future__ import annotations

import asyncpg
import pytest

from tests.integration.filters.model import EVERYBODY, populate


@pytest.fixture
async def pool(pool: asyncpg.Pool) -> asyncpg.Pool:
    """Return a pool of it."""
    await populate(pool, EVERYBODY)
    return pool
