"""Every way from each state and status to each other one: those that the tables allow, and all the rest.

`STATE_TRANSITIONS` and `STATUS_TRANSITIONS` are held to what the verbs, the dispatcher's statements and
the clock really do to rows, which is asked of each of them in every state. The guards were seen to work
by taking them out of the statements one by one: `state = ANY` of pause_mailing and its like, the state in start_due,
done and update_mailing, `status = 1` in settle, the statuses of requeue, and the look-up of present
messages in take_in. Each time the test of that statement failed. In the deletion of a client each of
three looks at the status is enough; its test failed without all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import STATE_TRANSITIONS, STATUS_TRANSITIONS, MailingState, Reason, Status
from dispatcher.retry_policy import OPEN_BATCHES, unsent
from mailing.v1 import mailing_pb2
from mailing.v1.client_service_pb2 import DeleteClientRequest
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    DeleteMailingRequest,
    PauseMailingRequest,
    ResumeMailingRequest,
    RetryMailingRequest,
)
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import at, update
from tests.integration.api.rows import add_count, count_of
from tests.support.ledger import add_clients, add_mailing

S = MailingState
Act = Callable[[Service, asyncpg.Pool, int], Awaitable[Any]]


@dataclass(frozen=True)
class Mover:
    """What moves mailings: from which states to which one, and where it changes nothing.

    Anywhere else it is refused, unless it is no call: then it passes the mailing over.
    """

    act: Act
    moves: Mapping[MailingState, MailingState]
    same: frozenset[MailingState] = frozenset()
    call: bool = True
    needed: frozenset[MailingState] = field(default_factory=frozenset)


async def _retry(service: Service, pool: asyncpg.Pool, id_: int) -> None:
    request = RetryMailingRequest(mailing_id=id_, statuses=[Status.FAILED])  # type: ignore[list-item]
    assert (await service.mailings.RetryMailing(request)).requeued == 1


async def _resume_early(service: Service, pool: asyncpg.Pool, id_: int) -> None:
    await pool.execute("UPDATE mailings SET starts_at = now() + interval '1 h' WHERE id = $1", id_)
    await service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=id_))


async def _end(_: Service, pool: asyncpg.Pool, id_: int) -> None:
    await dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.complete()


MOVERS = {
    "pause": Mover(
        lambda service, _, id_: service.mailings.PauseMailing(PauseMailingRequest(mailing_id=id_)),
        dict.fromkeys((S.SCHEDULED, S.RUNNING), S.PAUSED),
        frozenset({S.PAUSED}),
        needed=frozenset({S.SCHEDULED, S.RUNNING}),
    ),
    "resume": Mover(
        lambda service, _, id_: service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=id_)),
        {S.PAUSED: S.RUNNING},
        frozenset({S.RUNNING, S.SCHEDULED}),
        needed=frozenset({S.PAUSED}),
    ),
    "resume before the start": Mover(
        _resume_early,
        {S.PAUSED: S.SCHEDULED},
        frozenset({S.RUNNING, S.SCHEDULED}),
        needed=frozenset({S.PAUSED}),
    ),
    "cancel": Mover(
        lambda service, _, id_: service.mailings.CancelMailing(CancelMailingRequest(mailing_id=id_)),
        dict.fromkeys((S.SCHEDULED, S.RUNNING, S.PAUSED), S.CANCELLED),
        frozenset({S.CANCELLED}),
        needed=frozenset({S.SCHEDULED, S.RUNNING, S.PAUSED}),
    ),
    "retry": Mover(
        _retry,
        {S.COMPLETED: S.RUNNING},
        frozenset({S.RUNNING, S.PAUSED}),
        needed=frozenset({S.RUNNING, S.PAUSED, S.COMPLETED}),
    ),
    "a later start": Mover(
        lambda service, _, id_: update(service, mailing_pb2.Mailing(id=id_, start_time=at(60))),
        {S.RUNNING: S.SCHEDULED},
        frozenset({S.SCHEDULED}),
        needed=frozenset({S.SCHEDULED, S.RUNNING}),
    ),
    "the start": Mover(
        lambda _, pool, id_: dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.start_due(),
        {S.SCHEDULED: S.RUNNING},
        call=False,
    ),
    "the end": Mover(_end, dict.fromkeys((S.RUNNING, S.PAUSED), S.COMPLETED), call=False),
}


async def begun(pool: asyncpg.Pool, state: MailingState) -> int:
    """Return a mailing with one message, which failed."""
    mailing_id = await add_mailing(pool, state=MailingState.SCHEDULED, starts_in=-60)
    await dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.start_due()
    await pool.execute("UPDATE expansions SET finished = true")
    await pool.execute(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, status, reason, settled_at)"
        " VALUES (0, $1, 16, now(), now(), 3, 1, now())",
        mailing_id,
    )
    await add_count(pool, mailing_id, 0, Status.FAILED, 1)
    await pool.execute("UPDATE mailings SET state = $2 WHERE id = $1", mailing_id, state)
    return mailing_id


async def state_of(pool: asyncpg.Pool, mailing_id: int) -> MailingState:
    return S(await pool.fetchval("SELECT state FROM mailings WHERE id = $1", mailing_id))


def test_every_arrow_between_states_is_somebodys_and_nobody_has_others() -> None:
    moves = {(old, new) for mover in MOVERS.values() for old, new in mover.moves.items()}
    assert moves == {(old, new) for old, after in STATE_TRANSITIONS.items() for new in after}


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.name)
@pytest.mark.parametrize("name", MOVERS)
async def test_a_mailing_moves_along_the_table_and_not_otherwise(
    service: Service, pool: asyncpg.Pool, name: str, state: MailingState
) -> None:
    mover = MOVERS[name]
    mailing_id = await begun(pool, state)
    version = "SELECT version FROM mailings WHERE id = $1"
    before = await pool.fetchval(version, mailing_id)
    if state in mover.moves or state in mover.same or not mover.call:
        await mover.act(service, pool, mailing_id)
    else:
        with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
            await mover.act(service, pool, mailing_id)
        assert info.metadata == {"found": state.name, "needed": ",".join(s.name for s in sorted(mover.needed))}
        assert await pool.fetchval(version, mailing_id) == before
    assert await state_of(pool, mailing_id) is mover.moves.get(state, state)


async def test_a_cancelled_mailing_whose_start_lies_ahead_stays_cancelled(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_mailing(pool, starts_in=3600, state=S.CANCELLED)
    await update(service, mailing_pb2.Mailing(id=mailing_id, title="New"))
    assert await state_of(pool, mailing_id) is S.CANCELLED


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.name)
async def test_a_mailing_is_deleted_unless_it_is_live(
    service: Service, pool: asyncpg.Pool, state: MailingState
) -> None:
    mailing_id = await begun(pool, state)
    request = DeleteMailingRequest(mailing_id=mailing_id)
    if state in (S.RUNNING, S.PAUSED):
        with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
            await service.mailings.DeleteMailing(request)
        assert info.metadata == {"found": state.name, "needed": "SCHEDULED,COMPLETED,CANCELLED"}
        assert await state_of(pool, mailing_id) is state
    else:
        assert (await service.mailings.DeleteMailing(request)).deleted_messages == 1
        assert await pool.fetchval("SELECT count(*) FROM ledger") == 0


async def add_messages(pool: asyncpg.Pool, mailing_id: int, clients: Mapping[int, Status], batch: bool = True) -> None:
    """Add messages of bucket 0 with these statuses, all of them in one batch."""
    await pool.executemany(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, status, settled_at)"
        " VALUES (0, $1, $2, now(), now(), $3::smallint, CASE WHEN $3 <> 1 THEN now() END)",
        [(mailing_id, client_id, status) for client_id, status in clients.items()],
    )
    for status in clients.values():
        await add_count(pool, mailing_id, 0, status, 1)
    if batch:
        await pool.execute(
            "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)"
            " VALUES (0, $1, nextval('batch_no'), $2, now())",
            mailing_id,
            sorted(clients),
        )


async def found(pool: asyncpg.Pool, mailing_id: int) -> dict[int, Status]:
    rows = await pool.fetch("SELECT client_id, status FROM ledger WHERE mailing_id = $1", mailing_id)
    counted = {status: n for status, n in (await count_of(pool, mailing_id)).items() if n}
    statuses = {row["client_id"]: Status(row["status"]) for row in rows}
    assert counted == {status: list(statuses.values()).count(status) for status in set(statuses.values())}
    return statuses


async def journalled(pool: asyncpg.Pool) -> dict[int, Status]:
    rows = await pool.fetch("SELECT client_ids, statuses FROM journal")
    return {
        client: Status(status)
        for row in rows
        for client, status in zip(
            row["client_ids"], row["statuses"] * (len(row["client_ids"]) // len(row["statuses"])), strict=True
        )
    }


def moved(before: Mapping[int, Status], after: Mapping[int, Status]) -> set[tuple[Status, Status]]:
    return {(before[client], after[client]) for client in before if before[client] is not after[client]}


def allowed_from(*sources: Status) -> set[tuple[Status, Status]]:
    return {(old, new) for old in sources for new in STATUS_TRANSITIONS[old]}


async def test_settling_moves_pending_messages_only_and_to_any_status(pool: asyncpg.Pool) -> None:
    """All 49 pairs in one batch: as when somebody else has settled some of it before."""
    mailing_id = await add_mailing(pool, state=S.RUNNING)
    pairs = {16 * n: (old, new) for n, (old, new) in enumerate(((o, t) for o in Status for t in Status), 1)}
    before = {client: old for client, (old, _) in pairs.items()}
    await add_messages(pool, mailing_id, before)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    (batch,) = await storage.queue.claim(mailing, 0, 1, 60.0, None)
    assert [before[recipient.client_id] for recipient in batch.recipients] == [Status.PENDING] * 7
    outcomes = [(client, 0, unsent(new, Reason.NONE)) for client, (_, new) in pairs.items()]
    assert await storage.queue.settle(Settlement.of(batch, "default", outcomes, False))
    after = await found(pool, mailing_id)
    assert moved(before, after) == allowed_from(Status.PENDING)
    changed = {client: status for client, status in after.items() if before[client] is not status}
    assert await journalled(pool) == changed


async def test_deleting_a_client_cancels_pending_messages_only(service: Service, pool: asyncpg.Pool) -> None:
    mailings = {await add_mailing(pool, state=S.RUNNING): status for status in Status}
    made = await add_client(service)
    bucket = made.id % 16
    for mailing_id, status in mailings.items():
        await add_messages(pool, mailing_id, {made.id: status})
    for table in ("messages", "batches", "mailing_counts"):
        await pool.execute(f"UPDATE {table} SET bucket = $1", bucket)
    answer = await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    assert answer.cancelled_messages == 1
    for mailing_id, status in mailings.items():
        expected = Status.CANCELLED if status is Status.PENDING else status
        assert await found(pool, mailing_id) == {made.id: expected}


@pytest.mark.parametrize("chosen", [Status.FAILED, Status.EXPIRED, Status.UNKNOWN])
async def test_retrying_puts_back_what_was_chosen_only(service: Service, pool: asyncpg.Pool, chosen: Status) -> None:
    mailing_id = await add_mailing(pool, state=S.RUNNING)
    before = {16 * status: status for status in Status}
    await add_messages(pool, mailing_id, before)
    request = RetryMailingRequest(mailing_id=mailing_id, statuses=[chosen])  # type: ignore[list-item]
    assert (await service.mailings.RetryMailing(request)).requeued == 1
    assert moved(before, await found(pool, mailing_id)) == {(chosen, Status.PENDING)}
    assert await journalled(pool) == {16 * chosen: Status.PENDING}


async def test_retrying_has_exactly_the_ways_back(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_mailing(pool, state=S.RUNNING)
    before = {16 * status: status for status in Status}
    await add_messages(pool, mailing_id, before)
    for chosen in Status:
        request = RetryMailingRequest(mailing_id=mailing_id, statuses=[chosen])  # type: ignore[list-item]
        try:
            await service.mailings.RetryMailing(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017  some of them are refused
    assert moved(before, await found(pool, mailing_id)) == allowed_from(*set(Status) - {Status.PENDING})


async def test_expanding_leaves_messages_alone_that_are_there(pool: asyncpg.Pool) -> None:
    mailing_id = await add_mailing(pool)
    before = {16 * status: status for status in Status}
    await add_clients(pool, 8 * 16)
    await add_messages(pool, mailing_id, before)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    await pool.execute("UPDATE expansions SET reached = $1", 2**63 - 1)  # as in every pass but the first
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    assert (await storage.plan.expand(expansion, 0, 500, 1000)).inserted == 1
    after = await found(pool, mailing_id)
    assert after == before | {8 * 16: Status.PENDING}
