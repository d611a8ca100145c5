"""Rows of the ledger that only a dispatcher writes, for tests that need some."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import asyncpg

from dispatcher.model.states import MailingState, Status


async def add_mailing(pool: asyncpg.Pool, state: MailingState = MailingState.RUNNING) -> int:
    """Add a mailing that began a minute ago; return its id."""
    mailing_id: int = await pool.fetchval(
        "INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts, initial_backoff,"
        " max_backoff) VALUES (nextval('mailing_id'), 'Hello', now() - interval '1 min', $1, 1, 1, 5, '1 s', '5 min')"
        " RETURNING id",
        state,
    )
    return mailing_id


async def add_batch(pool: asyncpg.Pool, mailing_id: int, client_ids: Sequence[int], lease: float = 0) -> None:
    """Add pending messages to clients of one bucket, in one batch.

    The batch is leased for `lease` seconds; was leased, when that is negative; never was, when it is 0.
    """
    bucket = client_ids[0] % 16
    await pool.execute(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at)"
        " SELECT $1, $2, id, now(), now() FROM unnest($3::bigint[]) id",
        bucket,
        mailing_id,
        client_ids,
    )
    await pool.execute(
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, lease_until, holder, fence)"
        " VALUES ($1, $2, nextval('batch_no'), $3, now(), coalesce(now() + $4::interval, '-infinity'), $5, $6)",
        bucket,
        mailing_id,
        client_ids,
        timedelta(seconds=lease) if lease else None,
        uuid4() if lease else None,
        1 if lease else 0,
    )
    await add_count(pool, mailing_id, bucket, Status.PENDING, len(client_ids))


async def add_count(pool: asyncpg.Pool, mailing_id: int, bucket: int, status: Status, n: int) -> None:
    """Add `n` to a counter."""
    await pool.execute(
        "INSERT INTO mailing_counts AS k (bucket, mailing_id, status, n) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n",
        bucket,
        mailing_id,
        status,
        n,
    )


async def count_of(pool: asyncpg.Pool, mailing_id: int) -> dict[Status, int]:
    """Return the counters of a mailing, summed over the buckets."""
    rows = await pool.fetch(
        "SELECT status, sum(n)::bigint AS n FROM mailing_counts WHERE mailing_id = $1 GROUP BY status", mailing_id
    )
    return {Status(row["status"]): row["n"] for row in rows}
