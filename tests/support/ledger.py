"""Rows to begin with, and the audit that every ledger must pass at every moment."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from dispatcher.model.states import AudienceMode, MailingState, Semantics, Status
from server.storage.database import Database
from server.storage.verification import Verification

BUCKETS = 16


async def add_clients(pool: asyncpg.Pool, count: int, first: int = 16, **columns: Any) -> list[int]:
    """Add clients with consecutive ids; `columns` hold for all of them."""
    names = ["bucket", "id", "phone", "timezone", *columns]
    rows = [
        (n % BUCKETS, n, str(79_000_000_000 + n), columns.get("timezone", "Europe/Moscow"), *columns.values())
        for n in range(first, first + count)
    ]
    if "timezone" in columns:
        names.remove("timezone")
        rows = [(*row[:3], *row[4:]) for row in rows]
    placeholders = ", ".join(f"${i}" for i in range(1, len(names) + 1))
    await pool.executemany(f"INSERT INTO clients ({', '.join(names)}) VALUES ({placeholders})", rows)
    await pool.executemany(
        "WITH s AS (UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = $1 RETURNING seq)"
        " INSERT INTO client_changes (bucket, seq, client_ids) SELECT $1, seq, $2 FROM s",
        [(b, [row[1] for row in rows if row[0] == b]) for b in sorted({row[0] for row in rows})],
    )
    return [row[1] for row in rows]


async def add_mailing(
    pool: asyncpg.Pool,
    text: str = "Hello",
    starts_in: float = 0.0,
    ends_in: float | None = None,
    state: MailingState = MailingState.SCHEDULED,
    audience: AudienceMode = AudienceMode.SNAPSHOT,
    semantics: Semantics = Semantics.AT_LEAST_ONCE,
    max_attempts: int = 5,
    backoff: float = 0.05,
    where: str = "{}",
    priority: int = 0,
    endpoint: str = "",
) -> int:
    """Add a mailing, its times in seconds from now by the database's clock; return its id."""
    mailing_id: int = await pool.fetchval(
        "INSERT INTO mailings (id, text, starts_at, ends_at, state, audience_mode, semantics, max_attempts,"
        " initial_backoff, max_backoff, filter, priority, endpoint) VALUES (nextval('mailing_id'), $1,"
        " now() + $2::interval, now() + $3::interval, $4, $5, $6, $7, $8::interval, $8::interval * 4, $9, $10, $11)"
        " RETURNING id",
        text,
        timedelta(seconds=starts_in),
        None if ends_in is None else timedelta(seconds=ends_in),
        state,
        audience,
        semantics,
        max_attempts,
        timedelta(seconds=backoff),
        where,
        priority,
        endpoint,
    )
    return mailing_id


async def database_now(pool: asyncpg.Pool) -> datetime:
    """Return the time by the database's clock."""
    now: datetime = await pool.fetchval("SELECT clock_timestamp()")
    return now


async def statuses(pool: asyncpg.Pool, mailing_id: int) -> Counter[Status]:
    """Return how many messages of a mailing have each status, counted row by row."""
    rows = await pool.fetch("SELECT status, count(*) AS n FROM ledger WHERE mailing_id = $1 GROUP BY 1", mailing_id)
    return Counter({Status(row["status"]): row["n"] for row in rows})


async def audit(pool: asyncpg.Pool) -> list[str]:
    """Return every way in which the ledger contradicts itself; empty when it is sound."""
    verification = Verification(Database(pool))
    findings = [
        finding
        async for place, _ in verification.places()
        if place.mailing_id
        for finding in await verification.check(place)
    ]
    return [f"{one.check} of mailing {one.mailing_id} in bucket {one.bucket}: {one.found}" for one in findings]
