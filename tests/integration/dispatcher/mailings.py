"""What became of a mailing and of its messages."""

from __future__ import annotations

import asyncpg

from dispatcher.model.states import MailingState
from tests.support.eventually import eventually


async def completed(pool: asyncpg.Pool, mailing_id: int, within: float = 20.0) -> None:
    """Return once the mailing is over."""
    state = "SELECT state FROM mailings WHERE id = $1"
    await eventually(lambda: pool.fetchval(state, mailing_id), lambda found: found == MailingState.COMPLETED, within)


async def ends(pool: asyncpg.Pool, mailing: int) -> dict[int, tuple[int, int]]:
    """Return status and reason of every message, by client."""
    rows = await pool.fetch("SELECT client_id, status, reason FROM ledger WHERE mailing_id = $1", mailing)
    return {row["client_id"]: (row["status"], row["reason"]) for row in rows}
