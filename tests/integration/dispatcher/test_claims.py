"""What a claim returns of a batch: columns in the order of its clients' ids, however they are read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.states import MailingState
from server.storage.queries import load_queries
from tests.support.ledger import add_clients, add_mailing

CLAIM = load_queries("work_queue.sql")["claim"]
BUCKET, GONE, LOST = 3, 3 + 16 * 30, uuid4()
COLUMNS = ("client_ids", "phones", "tags", "timezones", "skip_reasons", "opens_at", "closes_in", "attributes")


async def claimed(connection: asyncpg.Connection, mailing_id: int, **lists: Any) -> asyncpg.Record:
    """Return the one open batch of a mailing, claimed and given back at once."""
    nothing = dict.fromkeys(("tags", "operator_codes", "timezones", "attributes", "chosen_ids"))
    arguments: dict[str, Any] = nothing | lists
    transaction = connection.transaction()
    await transaction.start()
    (row,) = await connection.fetch(
        *CLAIM.bind(
            bucket=BUCKET,
            mailing_id=mailing_id,
            version=1,
            state=MailingState.RUNNING,
            most=1,
            held=[],
            lease=timedelta(minutes=1),
            replica_id=LOST,
            max_backoff=timedelta(minutes=1),
            with_values=True,
            **arguments,
        )
    )
    await transaction.rollback()
    return row


@pytest.mark.parametrize("lists", [{}, {"tags": ["moved"]}])
async def test_columns_are_parallel_however_the_clients_are_read(pool: asyncpg.Pool, lists: dict[str, Any]) -> None:
    """Clients that were changed lie elsewhere; one is gone; every third has a window."""
    await add_clients(pool, 16 * 60, tag="first")
    await pool.execute("UPDATE clients SET tag = 'moved' WHERE bucket = $1 AND id / 16 % 2 = 0", BUCKET)
    await pool.execute(
        "UPDATE clients SET window_start = (now() AT TIME ZONE timezone)::time, window_length = interval '1 h'"
        " WHERE bucket = $1 AND id / 16 % 3 = 0",
        BUCKET,
    )
    await pool.execute("DELETE FROM clients WHERE bucket = $1 AND id = $2", BUCKET, GONE)
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    ids = [BUCKET + 16 * n for n in range(1, 61)]
    await pool.execute(
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, fresh) VALUES ($1, $2, 1, $3, now(), true)",
        BUCKET,
        mailing,
        ids,
    )
    async with pool.acquire() as connection:
        by_index = await claimed(connection, mailing, **lists)
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            await connection.execute(f"SET enable_{way} = off")
        await connection.execute("DISCARD PLANS")
        in_their_places = await claimed(connection, mailing, **lists)
        await connection.execute("RESET ALL")
    assert by_index["client_ids"] == [one for one in ids if one != GONE]
    assert by_index["gone"] == [GONE]
    assert by_index["phones"] == [str(79_000_000_000 + one) for one in by_index["client_ids"]]
    for column in COLUMNS:
        assert _rounded(in_their_places[column]) == _rounded(by_index[column]), column


def _rounded(column: list[Any] | None) -> list[Any] | None:
    """Return it with seconds that two claims at different moments agree on."""
    return column and [round(one / 60) if isinstance(one, float) else one for one in column]
