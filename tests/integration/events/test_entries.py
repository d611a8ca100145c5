"""What calls and dispatchers write to the event log, in the transaction of what it reports."""

from __future__ import annotations

from collections import Counter

import asyncpg
from google.protobuf.duration_pb2 import Duration

from dispatcher.model.states import AudienceMode, ErrorClass, MailingState, Status
from mailing.v1.admin_service_pb2 import PauseDispatchRequest, ResumeDispatchRequest, UpdateDispatchSettingsRequest
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import CreateClientRequest, DeleteClientRequest, UpdateClientRequest
from mailing.v1.dispatch_pb2 import DispatchSettings
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    CreateMailingRequest,
    DeleteMailingRequest,
    PauseMailingRequest,
    ResumeMailingRequest,
    RetryMailingRequest,
    UpdateMailingRequest,
)
from mailing.v1.message_pb2 import Message
from tests.integration.api.calls import client, refused, requests
from tests.integration.dispatcher.conftest import Start as StartDispatcher
from tests.integration.dispatcher.conftest import start as start_dispatcher
from tests.integration.events.conftest import Replica, Watch
from tests.support.endpoints import ScriptedSender, answer, broken
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, statuses

__all__ = ["start_dispatcher"]


def events(entries: list[LogEntry]) -> list[str]:
    return [entry.event for entry in entries]


async def test_each_call_on_a_mailing_is_recorded_once(replica: Replica) -> None:
    created = await replica.mailings.CreateMailing(CreateMailingRequest(mailing=Mailing(text="x", title="Sale")))
    mailing_id = created.mailing.id
    for _ in range(2):
        await replica.mailings.PauseMailing(PauseMailingRequest(mailing_id=mailing_id))
    patch = Mailing(id=mailing_id, priority=5, title="Sale")
    await replica.mailings.UpdateMailing(UpdateMailingRequest(mailing=patch))
    await replica.mailings.UpdateMailing(UpdateMailingRequest(mailing=patch))
    await replica.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=mailing_id))
    await replica.mailings.CancelMailing(CancelMailingRequest(mailing_id=mailing_id))
    await replica.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=mailing_id))
    entries = await Watch(replica, mailing_id=mailing_id).past()
    calls = ["created", "started", "paused", "updated", "resumed", "cancelled", "deleted"]
    assert events(entries) == [f"mailing.{event}" for event in calls]
    assert dict(entries[3].details) == {"fields": "priority"}
    assert "Sale" in entries[0].text
    assert {entry.mailing_id for entry in entries} == {mailing_id}


async def test_a_rejected_call_is_not_recorded(replica: Replica) -> None:
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await replica.mailings.PauseMailing(PauseMailingRequest(mailing_id=7))
    assert await Watch(replica).past() == []


async def test_deletions_opt_outs_and_imports_are_recorded(replica: Replica) -> None:
    added = (await replica.clients.CreateClient(CreateClientRequest(client=client()))).client
    for out in (True, True, False):
        change = UpdateClientRequest(client=Client(id=added.id, opted_out=out))
        change.update_mask.paths.append("opted_out")
        await replica.clients.UpdateClient(change)
    await replica.clients.ImportClients(requests([client("79261234568"), client("79261234569")]))
    await replica.clients.DeleteClient(DeleteClientRequest(client_id=added.id))
    own = await Watch(replica, client_id=added.id).past()
    assert events(own) == ["client.opted_out", "client.opted_in", "client.deleted"]
    (imported,) = [entry for entry in await Watch(replica).past() if entry.event == "clients.imported"]
    assert dict(imported.details) == {"created": "2", "updated": "0", "unchanged": "0"}


async def test_what_operators_do_is_recorded(replica: Replica) -> None:
    for _ in range(2):
        await replica.admin.PauseDispatch(PauseDispatchRequest())
        await replica.admin.UpdateDispatchSettings(
            UpdateDispatchSettingsRequest(settings=DispatchSettings(poll_max=Duration(seconds=2)))
        )
    await replica.admin.ResumeDispatch(ResumeDispatchRequest())
    entries = await Watch(replica).past()
    assert events(entries) == ["dispatch.paused", "dispatch.settings", "dispatch.resumed"]
    assert entries[0].level == LogEntry.LEVEL_WARNING
    assert dict(entries[1].details) == {"poll_max": "2"}


async def test_the_life_of_a_mailing_is_recorded(
    pool: asyncpg.Pool, replica: Replica, start_dispatcher: StartDispatcher
) -> None:
    ids = await add_clients(pool, 40)
    bad, refused_one = ids[3], ids[4]

    def script(client_id: int, number: int) -> object:
        if client_id == refused_one:
            return answer(400)
        return answer(503) if client_id == bad and number == 1 else answer()

    mailing_id = await add_mailing(pool, starts_in=0.2)
    start_dispatcher(ScriptedSender(script))  # type: ignore[arg-type]
    watch = Watch(replica, mailing_id=mailing_id)
    entries: list[LogEntry] = []
    while "mailing.completed" not in events(entries):
        entries += (await watch.response()).entries
    counts = Counter(events(entries))
    assert counts == {
        "mailing.started": 1,
        "mailing.expanded": 1,
        "mailing.completed": 1,
        "attempt.failed": 1,
        "message.failed": 1,
    }
    assert entries[0].event == "mailing.started"
    (completed,) = [entry for entry in entries if entry.event == "mailing.completed"]
    assert dict(completed.details) == {"delivered": "39", "failed": "1"}
    (expanded,) = [entry for entry in entries if entry.event == "mailing.expanded"]
    assert expanded.details["messages"] == "40"
    (failed,) = [entry for entry in entries if entry.event == "message.failed"]
    assert (failed.client_id, failed.message_id) == (refused_one, mailing_id << 32 | refused_one)
    await replica.mailings.RetryMailing(
        RetryMailingRequest(mailing_id=mailing_id, statuses=[Message.STATUS_FAILED, Message.STATUS_UNKNOWN])
    )
    retried: list[LogEntry] = []
    while "mailing.retried" not in events(retried):
        retried += (await watch.response()).entries
    assert dict(retried[0].details) == {"statuses": "failed, unknown"}
    own = await Watch(replica, message_id=mailing_id << 32 | bad).past()
    assert [(entry.event, entry.details["endpoint_status"]) for entry in own] == [("attempt.failed", "503")]


async def test_an_open_mailing_is_expanded_once(
    pool: asyncpg.Pool, replica: Replica, start_dispatcher: StartDispatcher
) -> None:
    await add_clients(pool, 5)
    mailing_id = await add_mailing(pool, audience=AudienceMode.OPEN)
    start_dispatcher(ScriptedSender())
    await eventually(lambda: statuses(pool, mailing_id), lambda found: found[Status.DELIVERED] == 5)
    await add_clients(pool, 5, first=160)
    await eventually(lambda: statuses(pool, mailing_id), lambda found: found[Status.DELIVERED] == 10)
    await pool.execute("UPDATE mailings SET ends_at = now() WHERE id = $1", mailing_id)
    watch = Watch(replica, mailing_id=mailing_id)
    entries: list[LogEntry] = []
    while "mailing.completed" not in events(entries):
        entries += (await watch.response()).entries
    assert events(entries).count("mailing.expanded") == 1


async def test_failures_by_the_thousand_make_few_entries(
    pool: asyncpg.Pool, replica: Replica, start_dispatcher: StartDispatcher
) -> None:
    await add_clients(pool, 3000)
    mailing_id = await add_mailing(pool)
    start_dispatcher(ScriptedSender(lambda client_id, number: answer(409 + client_id // 16 % 5)))
    await eventually(lambda: statuses(pool, mailing_id), lambda found: found[Status.FAILED] == 3000)
    entries = await Watch(replica, mailing_id=mailing_id).past()
    assert len(entries) < 400
    reported = sum(int(entry.details.get("count", "1")) for entry in entries if entry.event.startswith("message"))
    assert reported == 3000


async def test_a_breaker_is_recorded_once_for_all(
    pool: asyncpg.Pool, replica: Replica, start_dispatcher: StartDispatcher
) -> None:
    await add_clients(pool, 300)
    await add_mailing(pool, state=MailingState.SCHEDULED)
    down = True
    sender = ScriptedSender(lambda client_id, number: broken(ErrorClass.CONNECT, sent=False) if down else answer())
    start_dispatcher(sender)
    start_dispatcher(sender)
    watch = Watch(replica)
    entries: list[LogEntry] = []
    while "breaker.opened" not in events(entries):
        entries += (await watch.response()).entries
    down = False
    while "breaker.closed" not in events(entries):
        entries += (await watch.response()).entries
    breakers = [entry for entry in entries if entry.event.startswith("breaker.")]
    assert events(breakers) == ["breaker.opened", "breaker.closed"]
    assert [entry.details["endpoint"] for entry in breakers] == ["default", "default"]
