"""VerifyLedger: finds what disagrees, goes on where it was left, gives signs of life, and holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest

from dispatcher.model.states import MailingState, Status
from mailing.v1.admin_service_pb2 import VerifyLedgerRequest, VerifyLedgerResponse
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.ledger_pb2 import LedgerFinding
from server.api.services import ledger_audit
from server.domain.findings import FindingKind
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_count, add_mailing
from tests.support.eventually import eventually
from tests.support.ledger import add_clients

if TYPE_CHECKING:  # the name exists for the type checker only
    from mailing.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

PHONES = "INSERT INTO client_phones (phone, bucket, client_id) SELECT phone, bucket, id FROM clients"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def admin(service: Service) -> AdminServiceAsyncStub:
    stub: AdminServiceAsyncStub = AdminServiceStub(service.channel)
    return stub


async def sound(pool: asyncpg.Pool) -> int:
    """Return a running mailing with a pending message in each of three buckets; all records agree."""
    await add_clients(pool, 3)
    await pool.execute(PHONES)
    mailing_id = await add_mailing(pool)
    for client_id in (16, 17, 18):
        await add_batch(pool, mailing_id, [client_id])
    return mailing_id


async def audited(admin: AdminServiceAsyncStub, **fields: object) -> list[VerifyLedgerResponse]:
    return [response async for response in admin.VerifyLedger(VerifyLedgerRequest(**fields))]  # type: ignore[arg-type]


async def findings(admin: AdminServiceAsyncStub, **fields: object) -> list[LedgerFinding]:
    return [finding for response in await audited(admin, **fields) for finding in response.findings]


async def test_records_that_agree_end_with_all_checked(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    await sound(pool)
    *_, last = await audited(admin)
    assert (last.checked, len(last.findings)) == (1.0, 0)


async def test_each_contradiction_has_its_kind_and_place(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    mailing_id = await sound(pool)
    await pool.execute("DELETE FROM batches WHERE bucket = 0")
    await pool.execute(
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)"
        " SELECT bucket, mailing_id, no + 9, client_ids, due_at FROM batches WHERE bucket = 1"
    )
    await pool.execute("UPDATE batches SET fresh = true, created_at = now() WHERE bucket = 2")
    await pool.execute("UPDATE messages SET status = 3, settled_at = now() WHERE bucket = 2")
    await add_count(pool, mailing_id, 5, Status.DELIVERED, 7)
    await pool.execute("UPDATE buckets SET journal_seq = journal_seq + 2 WHERE bucket = 6")
    await pool.execute("DELETE FROM client_phones WHERE client_id = 17")
    over = await add_mailing(pool, MailingState.COMPLETED)
    await add_batch(pool, over, [23])
    found = await findings(admin)
    kinds = {(LedgerFinding.Kind.Name(one.kind), one.bucket, one.mailing_id, one.client_id) for one in found}
    assert kinds >= {
        ("KIND_NOT_IN_BATCH", 0, mailing_id, 16),
        ("KIND_IN_TWO_BATCHES", 1, mailing_id, 17),
        ("KIND_SETTLED_IN_BATCH", 2, mailing_id, 18),
        ("KIND_COUNTER", 5, mailing_id, 0),
        ("KIND_FEED", 6, 0, 0),
        ("KIND_KEY", 1, 0, 17),
        ("KIND_LEFT_OVER", 7, over, 0),
    }
    (lost,) = [one for one in found if one.kind == LedgerFinding.KIND_NOT_IN_BATCH]
    assert (lost.message_id, lost.repairable) == ((mailing_id << 32) + 16, True)
    assert lost.text == "the pending message to client 16 stands in 0 open batches"


def test_the_kinds_are_those_of_the_contract() -> None:
    assert {f"KIND_{one.name}": one.value for one in FindingKind} == dict(LedgerFinding.Kind.items())


async def test_one_mailing_alone_is_audited(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    """Fails when what belongs to no mailing is looked at, or another mailing."""
    mailing_id = await sound(pool)
    other = await add_mailing(pool)
    await add_count(pool, other, 4, Status.FAILED, 1)
    await pool.execute("DELETE FROM client_phones")
    assert await findings(admin, mailing_id=mailing_id) == []
    assert {one.mailing_id for one in await findings(admin, mailing_id=other)} == {other}


async def test_an_audit_goes_on_behind_any_token(
    pool: asyncpg.Pool, admin: AdminServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_audit, "INTERVAL", -1.0)
    mailing_id = await sound(pool)
    for bucket in (1, 2, 9):
        await add_count(pool, mailing_id, bucket, Status.CANCELLED, 1)
    responses = await audited(admin)
    shares = [one.checked for one in responses]
    assert shares == sorted(shares)
    assert (len(shares) > 16, shares[-1]) == (True, 1.0)
    whole = [one.text for response in responses for one in response.findings]
    assert len(whole) == 3
    for number, response in enumerate(responses):
        behind = [one.text for later in responses[number + 1 :] for one in later.findings]
        assert [one.text for one in await findings(admin, resume_token=response.resume_token)] == behind


async def test_bad_requests_are_refused(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    mailing_id = await sound(pool)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await audited(admin, mailing_id=-1)
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await audited(admin, mailing_id=mailing_id + 1)
    token = (await audited(admin))[-1].resume_token
    with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
        await audited(admin, mailing_id=mailing_id, resume_token=token)


@asynccontextmanager
async def locked(pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Let every statement that reads messages wait inside the block."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_long_step_gives_signs_of_life_and_ends_with_its_call(
    pool: asyncpg.Pool, admin: AdminServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when audits look at several places at once, or a statement goes on without its caller."""
    monkeypatch.setattr(ledger_audit, "QUIET", 0.05)
    await sound(pool)
    async with locked(pool):
        calls = [admin.VerifyLedger(VerifyLedgerRequest()) for _ in range(3)]
        for call in calls:
            assert [(await call.read()).checked < 1.0 for _ in range(3)] == [True] * 3  # type: ignore[attr-defined]
        assert await pool.fetchval(WAITING) == 1
        for call in calls:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.code() and await call.read()
        await eventually(lambda: pool.fetchval(WAITING), lambda waiting: waiting == 0)
    assert await findings(admin) == []


async def test_what_is_removed_meanwhile_contradicts_nothing(
    pool: asyncpg.Pool, admin: AdminServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a mailing that is deleted after it was listed is looked at all the same."""
    monkeypatch.setattr(ledger_audit, "QUIET", 0.05)
    await sound(pool)
    later = await add_mailing(pool)
    await add_batch(pool, later, [16])
    call = admin.VerifyLedger(VerifyLedgerRequest())
    async with locked(pool):
        responses = aiter(call)
        await anext(responses)
        await eventually(lambda: pool.fetchval(WAITING), lambda waiting: waiting == 1)
        await pool.execute("UPDATE mailings SET messages_removed_at = now() WHERE id = $1", later)
        await pool.execute("DELETE FROM mailing_counts WHERE mailing_id = $1", later)
    assert [one async for response in responses for one in response.findings] == []
    assert await call.code() is grpc.StatusCode.OK
