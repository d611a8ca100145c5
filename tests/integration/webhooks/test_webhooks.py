"""Webhooks on a real database and real sockets: in order, at least once, over restarts and replicas."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher.model.states import MailingState, Status
from dispatcher.tasks import in_background
from mailing.v1.admin_service_pb2 import ListWebhooksRequest
from mailing.v1.admin_service_pb2 import TestWebhookRequest as TryRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from server.domain import webhooks as rules
from server.domain.webhooks import MAX_BODY, WebhookConfig
from server.endpoints import renewal
from server.endpoints.renewal import keep_webhook_secrets
from server.endpoints.webhooks_file import read_webhooks
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database
from server.storage.events import EventStore
from server.storage.webhooks import WebhookStore
from server.webhooks import Webhooks, worker
from server.webhooks.worker import Feeds
from tests.conformance.gateways import GatewayServer, Reply
from tests.conformance.scripted_endpoint import Request
from tests.integration.api.calls import refused
from tests.support.api import serving
from tests.support.eventually import eventually
from tests.support.ledger import add_mailing

SECRET = "whsec_" + base64.b64encode(b"new" * 8).decode()
OLD = "whsec_" + base64.b64encode(b"old" * 8).decode()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("IDLE", 0.02), ("AWAY", 0.02)):
        monkeypatch.setattr(worker, name, seconds)
    monkeypatch.setattr(rules, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(rules, "SLOW_DOWN", 0.05)


class Subscriber:
    """Takes webhooks, or not, as `answer` says; `events` are those it took."""

    def __init__(self, answer: Callable[[int], int] = lambda number: 200) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.events: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        status = self.answer(len(self.requests))
        if status == 200:
            self.events += json.loads(request.body)["data"]
        return Reply(status)

    async def told(self) -> set[str]:
        """Return the ids of the events it took."""
        return {event["id"] for event in self.events}

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


def config(port: int, **changes: object) -> WebhookConfig:
    fields: dict[str, object] = {
        "name": "crm",
        "url": f"http://127.0.0.1:{port}/hook?key=s3cret",
        "secrets": (SECRET, OLD),
    }
    return WebhookConfig(**{**fields, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def told(pool: asyncpg.Pool, *configs: WebhookConfig) -> AsyncIterator[Webhooks]:
    """Serve subscribers as one replica does; each is registered when the block begins."""
    database = Database(pool, 2.0)
    webhooks = Webhooks(configs, WebhookStore(database, uuid4()))
    async with webhooks.serving(Feeds(ChangeFeedStore(database, 16), EventStore(database, 16))):
        names = [one.name for one in configs]
        await eventually(lambda: webhooks.store.statuses(names), lambda found: len(found) == len(names))
        yield webhooks


async def settle(pool: asyncpg.Pool, mailing: int, client: int, status: Status = Status.DELIVERED) -> None:
    """Write an entry of the change feed, as a settlement does."""
    await pool.execute(
        "WITH tick AS (UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = $1 RETURNING journal_seq)"
        " INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)"
        " SELECT $1, journal_seq, $2, $3, $4 FROM tick",
        client % 16,
        mailing,
        [client],
        [status],
    )


async def note(pool: asyncpg.Pool, event: str, mailing: int = 0, details: str = "{}") -> None:
    """Write an entry of the event log."""
    await pool.execute(
        "WITH tick AS (UPDATE log_seqs SET seq = seq + 1 WHERE bucket = 3 RETURNING seq)"
        " INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details)"
        " SELECT 3, seq, 3, $1, 'x', $2, 0, 0, $3::jsonb FROM tick",
        event,
        mailing,
        details,
    )


async def test_events_are_told_and_signed(pool: asyncpg.Pool) -> None:
    """Fails when a signature is missing, wrong, or of one secret alone."""
    subscriber = Subscriber()
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    async with GatewayServer(subscriber) as server, told(pool, config(server.port)) as webhooks:
        await settle(pool, mailing, 17)
        await settle(pool, mailing, 18, Status.PENDING)
        await note(pool, "mailing.completed", mailing)
        await note(pool, "breaker.opened", details='{"endpoint": "sms", "reason": "credentials"}')
        await note(pool, "client.deleted")
        await eventually(lambda: len(subscriber.events), lambda count: count == 3)
        counted = webhooks.samples()["mailing_webhook_requests_total"]
    assert counted == {("crm", "delivered"): pytest.approx(len(subscriber.requests), abs=1), ("crm", "failed"): 0}
    found = {event["type"]: event["data"] for event in subscriber.events}
    assert found["message.settled"] == {
        "message_id": str(mailing << 32 | 17),
        "mailing_id": str(mailing),
        "client_id": "17",
        "status": "DELIVERED",
    }
    assert found["mailing.completed"] == {"mailing_id": str(mailing)}
    assert found["endpoint.refuses_credentials"] == {"endpoint": "sms"}
    for request in subscriber.requests:
        assert request.line == "POST /hook?key=s3cret HTTP/1.1"
        for secret in (SECRET, OLD):
            Webhook(secret).verify(request.body, request.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(request.body + b" ", request.headers)


async def test_a_changed_secret_file_signs_the_next_request(
    pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for one that had enough, which is asked again. Fails when a bad file takes the secret away."""
    monkeypatch.setattr(renewal, "CHECK_INTERVAL", 0.01)
    subscriber = Subscriber(lambda number: 410 if number == 1 else 200)
    secret, mailing = tmp_path / "secret", await add_mailing(pool, state=MailingState.RUNNING)
    secret.write_text(OLD)
    async with GatewayServer(subscriber) as server:
        path = tmp_path / "webhooks.toml"
        path.write_text(f"[webhooks.crm]\nurl = 'http://127.0.0.1:{server.port}/'\nsecret_file = 'secret'\n")
        configured = read_webhooks(path)
        async with told(pool, configured[0].config) as webhooks:
            keeping = keep_webhook_secrets(configured, webhooks.renew)
            async with in_background(keeping, "secrets of webhooks"):
                await settle(pool, mailing, 17)
                await eventually(lambda: webhooks.store.statuses(["crm"]), lambda found: found["crm"].disabled)
                secret.write_text("hidden")
                await eventually(lambda: "stay as they were" in caplog.text)
                secret.write_text(SECRET)
                await eventually(lambda: len(subscriber.events), lambda count: count == 1)
    refused, taken = subscriber.requests[0], subscriber.requests[-1]
    Webhook(OLD).verify(refused.body, refused.headers)
    Webhook(SECRET).verify(taken.body, taken.headers)
    assert "hidden" not in caplog.text


async def test_nothing_is_lost_over_restarts_and_failures(pool: asyncpg.Pool) -> None:
    """Fails when a position moves before the request was taken, or a repetition has another id."""
    subscriber = Subscriber(lambda number: 500 if number % 3 else 200)
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    async with GatewayServer(subscriber) as server:
        for part in range(4):
            async with told(pool, config(server.port)):
                for client in range(16 + 5 * part, 16 + 5 * part + 5):
                    await settle(pool, mailing, client, Status.FAILED)
                    await settle(pool, mailing, client)
                await eventually(lambda: len(subscriber.events), lambda count: count > 0)
        async with told(pool, config(server.port)):
            await eventually(subscriber.told, lambda told: len(told) == 40)
    clients = {str(client) for client in range(16, 36)}
    assert {one["data"]["client_id"] for one in subscriber.events} == clients
    for client_id in clients:
        statuses = [one["data"]["status"] for one in subscriber.events if one["data"]["client_id"] == client_id]
        assert list(dict.fromkeys(statuses)) == ["FAILED", "DELIVERED"]
    bodies: dict[str, bytes] = {}
    for request in subscriber.requests:
        assert bodies.setdefault(request.headers["webhook-id"], request.body)[:1] == request.body[:1]


async def test_two_replicas_tell_everything_once(pool: asyncpg.Pool) -> None:
    """Fails when both hold the same subscriber."""
    subscriber = Subscriber()
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    async with GatewayServer(subscriber) as server, told(pool, config(server.port)), told(pool, config(server.port)):
        for client in range(16, 66):
            await settle(pool, mailing, client)
        await eventually(subscriber.told, lambda told: len(told) == 50)
    assert len(subscriber.events) == 50


async def test_filters_choose_types_and_labels(pool: asyncpg.Pool) -> None:
    labelled, types = Subscriber(), Subscriber()
    gold, other = [await add_mailing(pool, state=MailingState.RUNNING) for _ in range(2)]
    await pool.execute("""UPDATE mailings SET labels = '{"team": "gold", "x": "y"}' WHERE id = $1""", gold)
    async with (
        GatewayServer(labelled) as one,
        GatewayServer(types) as two,
        told(
            pool,
            config(one.port, labels={"team": "gold"}),
            config(two.port, name="ops", events=frozenset({"endpoint.up", "mailing.started"})),
        ) as webhooks,
    ):
        for mailing in (gold, other):
            await settle(pool, mailing, 17)
            await note(pool, "mailing.started", mailing)
        await note(pool, "breaker.closed", details='{"endpoint": "sms"}')
        await eventually(lambda: len(types.events), lambda count: count == 3)
        await eventually(lambda: webhooks.store.statuses(["crm"]), lambda found: found["crm"].waiting == 0)
    assert sorted(labelled.kinds()) == ["mailing.started", "message.settled"]
    assert {event["data"]["mailing_id"] for event in labelled.events} == {str(gold)}


async def test_who_answers_gone_is_told_nothing_more(pool: asyncpg.Pool) -> None:
    """Fails when 410 is one failure among others, and when a changed configuration does not end it."""
    subscriber = Subscriber(lambda number: 410)
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    async with GatewayServer(subscriber) as server:
        async with told(pool, config(server.port)) as webhooks:
            await settle(pool, mailing, 17)
            await eventually(lambda: webhooks.store.statuses(["crm"]), lambda found: found["crm"].disabled)
            await settle(pool, mailing, 18)
        assert len(subscriber.requests) == 1
        subscriber.answer = lambda number: 200
        async with told(pool, config(server.port, secrets=(SECRET,))):
            await eventually(lambda: len(subscriber.events), lambda count: count == 2)


async def test_a_large_entry_is_told_in_small_requests(pool: asyncpg.Pool) -> None:
    subscriber = Subscriber()
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    async with GatewayServer(subscriber) as server, told(pool, config(server.port)):
        clients = [16 * n for n in range(1, 501)]
        await pool.execute(
            "WITH tick AS (UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = 0 RETURNING journal_seq)"
            " INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)"
            " SELECT 0, journal_seq, $1, $2, ARRAY[2::smallint] FROM tick",
            mailing,
            clients,
        )
        await eventually(lambda: len(subscriber.events), lambda count: count == 500)
    assert [event["data"]["client_id"] for event in subscriber.events] == [str(one) for one in clients]
    assert max(len(request.body) for request in subscriber.requests) <= MAX_BODY


async def test_operators_see_and_try_webhooks(pool: asyncpg.Pool) -> None:
    """Fails when a secret of the URL is shown, or a test moves the position."""
    subscriber = Subscriber()
    async with (
        GatewayServer(subscriber) as server,
        told(pool, config(server.port)) as webhooks,
        serving(pool, webhooks=webhooks) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = AdminServiceStub(channel)
        answer = await stub.TestWebhook(TryRequest(webhook="crm"))
        assert (answer.attempt.endpoint_status, answer.webhook_id[:4]) == (200, "msg_")
        [shown] = (await stub.ListWebhooks(ListWebhooksRequest())).webhooks
        assert shown.url == f"http://127.0.0.1:{server.port}/hook?key=***"
        assert (shown.name, shown.waiting, shown.last_error, shown.position != "") == ("crm", 0, "", True)
        with refused("NOT_FOUND", "WEBHOOK_NOT_FOUND"):
            await stub.TestWebhook(TryRequest(webhook="nobody"))
    assert subscriber.kinds() == ["webhook.test"]
