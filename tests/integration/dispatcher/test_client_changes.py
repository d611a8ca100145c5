"""Clients that opt out, go away or get another phone while a dispatcher holds the batch of their message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from dispatcher.model.states import AudienceMode, Status
from server.domain.clients import ClientDefinition
from server.domain.principals import ANONYMOUS, set_caller
from server.storage.client_deletion import ClientDeletion
from server.storage.clients import ClientStore
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.installation import Installation
from tests.integration.dispatcher.conftest import Start
from tests.support.endpoints import ScriptedSender
from tests.support.eventually import eventually
from tests.support.ledger import BUCKETS, add_clients, add_mailing, audit, statuses

INSTALLATION = Installation(BUCKETS, frozenset({"Europe/Moscow"}), UUID(int=0))
CLIENTS, CHANGED = 150, 85

Change = Callable[[asyncpg.Pool, int], Awaitable[object]]


def phone_of(client_id: int) -> str:
    return str(79_000_000_000 + client_id)


async def update(pool: asyncpg.Pool, client_id: int, **fields: object) -> None:
    """Change a client as UpdateClient does for one who may read clients."""
    set_caller(ANONYMOUS)
    patch = replace(ClientDefinition(phone=phone_of(client_id), timezone="Europe/Moscow"), **fields)  # type: ignore[arg-type]
    await ClientStore(Database(pool), INSTALLATION).update(client_id, "", patch, set(fields))


async def opt_out(pool: asyncpg.Pool, client_id: int) -> None:
    await update(pool, client_id, opted_out=True)


async def move(pool: asyncpg.Pool, client_id: int) -> None:
    await update(pool, client_id, phone=phone_of(client_id + 1_000_000))


async def leave(pool: asyncpg.Pool, client_id: int) -> None:
    await ClientDeletion(Database(pool), INSTALLATION).delete(client_id, "")


@pytest.mark.parametrize(
    ("change", "ends"), [(opt_out, Status.SKIPPED), (leave, Status.CANCELLED), (move, Status.DELIVERED)]
)
async def test_a_changed_client_is_sent_to_as_before_for_a_second_at_most(
    pool: asyncpg.Pool, start: Start, change: Change, ends: Status
) -> None:
    """One slow batch holds them all. Fails without the look for changes: the last ones leave seconds later."""
    clients = [client for n in range(1, CLIENTS + 1) for client in await add_clients(pool, 1, n * BUCKETS)]
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.04), max_concurrency=2)
    await sender.until(10)
    changed_at: dict[int, float] = {}
    for client_id in clients[-CHANGED:]:
        await change(pool, client_id)
        changed_at[client_id] = time.monotonic()
    await eventually(lambda: statuses(pool, mailing), lambda found: not found[Status.PENDING])
    sent = {message_id & 0xFFFFFFFF: (phone, at) for message_id, phone, _, at in sender.requests}
    late = [c for c, at in changed_at.items() if c in sent and sent[c][0] == phone_of(c) and sent[c][1] > at + 1.0]
    assert late == []
    assert set(sender.counts.values()) == {1}
    assert await statuses(pool, mailing) == Counter({Status.DELIVERED: len(sent)}) + Counter(
        {ends: CLIENTS - len(sent)}
    )
    assert sent.keys() >= set(clients[:-CHANGED])
    assert await audit(pool) == []


async def test_changes_that_are_no_longer_kept_count_for_every_client(pool: asyncpg.Pool) -> None:
    queue = dispatcher_storage(DispatcherDatabase(pool), UUID(int=1)).queue
    await add_clients(pool, 1, 16)
    await add_clients(pool, 1, 32)
    assert await queue.change_numbers() == {bucket: 2 if bucket == 0 else 0 for bucket in range(BUCKETS)}
    assert await queue.changed_clients(0, 1, 2, [16, 32, 48]) == [32]
    assert await queue.changed_clients(0, 0, 1, [16, 32]) == [16]
    await pool.execute("DELETE FROM client_changes WHERE seq = 1")
    assert sorted(await queue.changed_clients(0, 0, 2, [16, 48])) == [16, 48]


async def test_changes_are_kept_for_a_minute_for_those_who_hold_batches(pool: asyncpg.Pool) -> None:
    """An open mailing that has read them is no reason to remove them at once."""
    await add_clients(pool, 16)
    await add_mailing(pool, audience=AudienceMode.OPEN)
    plan = dispatcher_storage(DispatcherDatabase(pool), UUID(int=1)).plan
    await plan.start_due()
    await plan.forget_changes()
    assert await pool.fetchval("SELECT count(*) FROM client_changes") == 16
    await pool.execute("UPDATE client_changes SET at = now() - interval '61 s'")
    await plan.forget_changes()
    assert await pool.fetchval("SELECT count(*) FROM client_changes") == 0
