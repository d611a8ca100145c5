"""Rows to begin with, and the audit that every ledger must pass at every moment."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from dispatcher.model.states import AudienceMode, MailingState, Semantics, Status

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
    rows = await pool.fetch("SELECT status, count(*) AS n FROM messages WHERE mailing_id = $1 GROUP BY 1", mailing_id)
    return Counter({Status(row["status"]): row["n"] for row in rows})


async def audit(pool: asyncpg.Pool) -> list[str]:
    """Return every way in which the ledger contradicts itself; empty when it is sound."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        answers = [(question, await connection.fetch(sql)) for question, sql in _AUDIT]
    return [f"{question}: {list(map(tuple, rows))}" for question, rows in answers if rows]


_AUDIT = [
    (
        "pending messages that do not stand in exactly one open batch",
        "SELECT m.mailing_id, m.client_id, count(b.no) FROM messages m LEFT JOIN batches b ON b.bucket = m.bucket"
        " AND b.mailing_id = m.mailing_id AND b.client_ids @> ARRAY[m.client_id]"
        " WHERE m.status = 1 GROUP BY 1, 2 HAVING count(b.no) <> 1 LIMIT 5",
    ),
    (
        "counters that differ from the rows",
        "SELECT * FROM (SELECT bucket, mailing_id, status, reason, n FROM mailing_counts WHERE n <> 0) k"
        " FULL JOIN (SELECT bucket, mailing_id, status, CASE WHEN status IN (1, 2) THEN 0 ELSE reason END AS reason,"
        " count(*) AS n FROM messages GROUP BY 1, 2, 3, 4) r"
        " USING (bucket, mailing_id, status, reason) WHERE k.n IS DISTINCT FROM r.n LIMIT 5",
    ),
    (
        "attempts that the counters do not have",
        "SELECT * FROM (SELECT mailing_id, sum(attempts) AS n FROM mailing_counts GROUP BY 1) k"
        " JOIN (SELECT mailing_id, sum(attempts) AS n FROM messages GROUP BY 1) r USING (mailing_id)"
        " WHERE k.n <> r.n LIMIT 5",
    ),
    (
        "figures that differ from the rows: attempts of settled messages (1), latencies (2) and minutes (3) of"
        " delivered ones",
        "SELECT * FROM (SELECT bucket, mailing_id, kind, key, n FROM mailing_figures WHERE kind < 4 AND n <> 0) f"
        " FULL JOIN (SELECT bucket, mailing_id, kind, key, count(*) AS n FROM messages CROSS JOIN LATERAL (VALUES"
        " (1::smallint, attempts::bigint, status <> 1), (2, latency_bin(duration_ms), status = 2),"
        " (3, floor(extract(epoch FROM settled_at) / 60)::bigint, status = 2)) v (kind, key, counts)"
        " WHERE counts AND key IS NOT NULL GROUP BY 1, 2, 3, 4) r"
        " USING (bucket, mailing_id, kind, key) WHERE f.n IS DISTINCT FROM r.n LIMIT 5",
    ),
    (
        # A failure is an event: it stays counted when the message is tried again.
        "failures by minute that are fewer than the failed messages, or more though none was tried again",
        "SELECT * FROM (SELECT bucket, mailing_id, count(*) AS n FROM messages WHERE status = 3 GROUP BY 1, 2) m"
        " FULL JOIN (SELECT bucket, mailing_id, sum(n) AS n FROM mailing_figures WHERE kind = 4 GROUP BY 1, 2) f"
        " USING (bucket, mailing_id) WHERE coalesce(f.n, 0) < coalesce(m.n, 0)"
        " OR coalesce(f.n, 0) > coalesce(m.n, 0) AND NOT EXISTS (SELECT FROM journal j"
        " WHERE j.bucket = coalesce(m.bucket, f.bucket) AND j.mailing_id = coalesce(m.mailing_id, f.mailing_id)"
        " AND 1 = ANY (j.statuses)) LIMIT 5",
    ),
    (
        # An entry back to PENDING takes one that settled the message away.
        "settled messages that the journal does not have settled",
        "SELECT * FROM (SELECT bucket, mailing_id, count(*) AS n FROM messages WHERE status <> 1 GROUP BY 1, 2) m"
        " FULL JOIN (SELECT bucket, mailing_id, sum(CASE cardinality(statuses) WHEN 1 THEN cardinality(client_ids)"
        " * CASE statuses[1] WHEN 1 THEN -1 ELSE 1 END"
        " ELSE cardinality(statuses) - 2 * cardinality(array_positions(statuses, 1::smallint)) END) AS n"
        " FROM journal GROUP BY 1, 2) j"
        " USING (bucket, mailing_id) WHERE coalesce(m.n, 0) <> coalesce(j.n, 0) LIMIT 5",
    ),
]
