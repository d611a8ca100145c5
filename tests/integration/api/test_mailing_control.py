"""Pausing, resuming, cancelling and deleting mailings."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from dispatcher.model.states import MailingState
from mailing.v1 import mailing_pb2
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    DeleteMailingRequest,
    PauseMailingRequest,
    ResumeMailingRequest,
)
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import State, at, create, get, move_to, update
from tests.integration.api.rows import add_batch, add_mailing
from tests.support.locks import blocked


async def test_control_actions_move_a_mailing_and_may_be_repeated(service: Service) -> None:
    made = await create(service)
    for _ in range(2):
        paused = (await service.mailings.PauseMailing(PauseMailingRequest(mailing_id=made.id))).mailing
        assert paused.state == State.STATE_PAUSED
    for _ in range(2):
        resumed = (await service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id))).mailing
        assert resumed.state == State.STATE_RUNNING
    for _ in range(2):
        cancelled = (await service.mailings.CancelMailing(CancelMailingRequest(mailing_id=made.id))).mailing
        assert cancelled.state == State.STATE_CANCELLED
    assert len({made.etag, paused.etag, resumed.etag, cancelled.etag}) == 4
    for call in (
        service.mailings.PauseMailing(PauseMailingRequest(mailing_id=made.id)),
        service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id)),
    ):
        with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
            await call
        assert info.metadata["found"] == "CANCELLED"


async def test_a_scheduled_mailing_is_held_changed_and_scheduled_again(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    for _ in range(2):
        held = (await service.mailings.PauseMailing(PauseMailingRequest(mailing_id=made.id))).mailing
        assert held.state == State.STATE_PAUSED
    moved = mailing_pb2.Mailing(id=made.id, start_time=at(-60), endpoint="")
    assert (await update(service, moved, "start_time")).state == State.STATE_PAUSED
    for _ in range(2):
        resumed = (await service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id))).mailing
        assert resumed.state == State.STATE_SCHEDULED  # the dispatcher starts it, and takes its audience then


async def test_a_mailing_that_was_put_off_is_scheduled_again_when_resumed(service: Service) -> None:
    made = await create(service)
    await update(service, mailing_pb2.Mailing(id=made.id, start_time=at(3600)))
    await service.mailings.PauseMailing(PauseMailingRequest(mailing_id=made.id))
    resumed = (await service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id))).mailing
    assert resumed.state == State.STATE_SCHEDULED


async def test_a_scheduled_mailing_may_be_cancelled(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    cancelled = (await service.mailings.CancelMailing(CancelMailingRequest(mailing_id=made.id))).mailing
    assert cancelled.state == State.STATE_CANCELLED


async def test_a_state_that_is_being_changed_is_waited_for(service: Service, pool: asyncpg.Pool) -> None:
    """Resuming while a pause is under way resumes. Fails, with a PAUSED that should be PAUSED, without the lock."""
    made = await create(service)
    async with pool.acquire() as other, other.transaction():
        await other.execute("UPDATE mailings SET state = $1 WHERE id = $2", MailingState.PAUSED, made.id)
        call = asyncio.ensure_future(service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id)))
        await blocked(pool)
    assert (await call).mailing.state == State.STATE_RUNNING


async def test_dispatchers_are_woken_by_every_write(service: Service, pool: asyncpg.Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with pool.acquire() as listener:

        def hear(_connection: object, _pid: int, channel: str, _payload: str) -> None:
            heard.put_nowait(channel)

        await listener.add_listener("mailing", hear)
        made = await create(service)
        await update(service, mailing_pb2.Mailing(id=made.id, title="x"))
        await service.mailings.PauseMailing(PauseMailingRequest(mailing_id=made.id))
        await service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=made.id))
        await service.mailings.CancelMailing(CancelMailingRequest(mailing_id=made.id))
        async with asyncio.timeout(10):
            assert [await heard.get() for _ in range(5)] == ["mailing"] * 5
        await listener.remove_listener("mailing", hear)
    assert service.hints.count == 5


@pytest.mark.parametrize("state", [MailingState.RUNNING, MailingState.PAUSED])
async def test_a_live_mailing_cannot_be_deleted(service: Service, pool: asyncpg.Pool, state: MailingState) -> None:
    mailing_id = await add_mailing(pool, state)
    with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
        await service.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=mailing_id))
    assert info.metadata == {"found": state.name, "needed": "SCHEDULED,COMPLETED,CANCELLED"}


async def test_a_deleted_mailing_takes_its_ledger_along_and_no_other(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service)
    other = await create(service)
    for one in (made, other):
        await add_batch(pool, one.id, [16, 32])
        await add_batch(pool, one.id, [17])
        await pool.execute(
            "INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, duration_ms)"
            " VALUES (0, $1, 16, 1, now(), '', 1, 5)",
            one.id,
        )
    await move_to(pool, made.id, MailingState.COMPLETED)
    request = DeleteMailingRequest(mailing_id=made.id, etag="0-0")
    with refused("ABORTED", "STALE_ETAG"):
        await service.mailings.DeleteMailing(request)
    answer = await service.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=made.id))
    assert answer.deleted_messages == 3
    for table in ("messages", "batches", "attempts", "mailing_counts", "expansions"):
        rows = await pool.fetch(f"SELECT DISTINCT mailing_id FROM {table}")
        assert [row["mailing_id"] for row in rows] == [other.id]
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await get(service, made.id)
