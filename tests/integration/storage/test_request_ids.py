"""Request ids of creating calls are remembered for a time."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from server.storage import request_ids
from server.storage.database import Database


async def test_old_request_ids_are_forgotten_step_by_step(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the younger ones go as well, and when only the first part of a bucket's goes."""
    monkeypatch.setattr(request_ids, "MOST_FORGOTTEN", 2)
    await pool.execute(
        "INSERT INTO requests (bucket, request_id, method, digest, resource_id, created_at)"
        " SELECT n % 16, gen_random_uuid(), 'CreateMailing', '', n, now() - make_interval(days => n % 10)"
        " FROM generate_series(1, 200) n"
    )
    await request_ids.forget_old_requests(Database(pool), timedelta(days=6, hours=12))
    assert await pool.fetchval("SELECT count(*) FROM requests") == 140
    assert await pool.fetchval("SELECT min(created_at) > now() - interval '7 days' FROM requests")
