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
from tests.simulation.rows import Client, MailingRow


def retry(database: Database, mailing: MailingRow, statuses: Collection[Status], now: datetime) -> int:
    """Put a mailing's messages that have one of the statuses back to PENDING; return how many."""
    chosen = [m for m in database.messages.values() if m.mailing_id == mailing.id and m.status in statuses]
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
    if chosen and mailing.state is MailingState.COMPLETED:
        _reopen(database, mailing)
    return len(chosen)


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
        messages = [database.messages[batch.mailing_id, i] for i in batch.client_ids]
        if all(m.status is not Status.PENDING for m in messages):
            database.end_batch(batch.no)
    database.changed(client)
