"""What the API's stores do to the model database in one transaction: retries and deletions.

Kept apart from the actors, who decide when it happens, so that Postgres can be asked the same.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.states import AudienceMode, MailingState, Reason, Status
from dispatcher.retry_policy import batch_size
from tests.simulation.database import Database
from tests.simulation.rows import BlockRow, Client, MailingRow, Place


def retry(database: Database, mailing: MailingRow, statuses: Collection[Status], now: datetime) -> int:
    """Put a mailing's messages that have one of the statuses back to PENDING; return how many."""
    found = [m for m in database.messages.values() if m.mailing_id == mailing.id and m.status in statuses]
    chosen = [message for message in found if message.place is Place.ROW]
    for message in chosen:
        message.maybe_sent |= message.status is Status.UNKNOWN
        database.move(message, Status.PENDING, Reason.RETRYING if message.attempts else Reason.NONE)
        message.uncounted = message.attempts
        message.retried += 1
        message.due_at = now
    database.take_out(mailing.id, {message.client_id for message in chosen})
    size = batch_size(mailing.semantics, mailing.max_rate, BATCH_SIZE)
    for bucket in sorted({message.bucket for message in chosen}):
        ids = [message.client_id for message in chosen if message.bucket == bucket]
        database.open_batches(mailing.id, ids, now, size)
    for block in [b for b in database.blocks if b.mailing_id == mailing.id and b.status in statuses]:
        _reopen_block(database, block, now)
    if found and mailing.state is MailingState.COMPLETED:
        _reopen(database, mailing)
    return len(found)


def _reopen_block(database: Database, block: BlockRow, now: datetime) -> None:
    """Let the messages of a block stand in a fresh batch again, as before they ended."""
    database.blocks.remove(block)
    for message in [database.messages[block.mailing_id, i] for i in block.client_ids]:
        database.move(message, Status.PENDING, Reason.NONE)
        message.retried += 1
        message.due_at = now
        message.place = Place.BATCH
    database.open_batches(block.mailing_id, block.client_ids, now, created_at=block.created_at)


def _reopen(database: Database, mailing: MailingRow) -> None:
    """Let a completed mailing run again; an open one takes in who began to match meanwhile."""
    mailing.state = MailingState.RUNNING
    mailing.version += 1
    mailing.stopped_at = mailing.recheck_at = None
    if mailing.audience is AudienceMode.OPEN:
        database.expand_anew(mailing)


def delete_client(database: Database, client: Client) -> None:
    """Remove a client, and cancel what waits for them in batches that nobody holds or held."""
    del database.clients[client.id]
    for batch in list(database.batches.values()):
        if client.id not in batch.client_ids or batch.holder is not None or batch.maybe_sent:
            continue
        mailing = database.mailings[batch.mailing_id]
        message = database.messages[batch.mailing_id, client.id]
        if message.status is not Status.PENDING or message.maybe_sent or mailing.state is MailingState.CANCELLED:
            continue
        database.move(message, Status.CANCELLED, Reason.CLIENT_DELETED)
        message.place = Place.ROW
        if batch.fresh:
            message.due_at = batch.due_at
            batch.client_ids.remove(client.id)
        messages = [database.messages[batch.mailing_id, i] for i in batch.client_ids]
        if all(m.status is not Status.PENDING for m in messages):
            database.end_batch(batch.no)
    database.changed(client)
