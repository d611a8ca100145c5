"""The receipts listener on a free port, before a real database with mailings and messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from dispatcher.model.answers import Pointer, Source
from server.domain.inbound import InboundRules, InboundSource, words_of
from server.domain.receipts import Items, Receipt, ReceiptRules, ReceiptSource
from server.domain.signatures import by_header, by_path
from server.receipts.app import ReceiptsApp, Sources
from server.receipts.listener import ReceiptsListener
from server.receipts.writer import ReceiptWriter
from server.storage.database import Database
from server.storage.installation import read_installation
from server.storage.opt_outs import OptOutStore
from server.storage.receipts import ReceiptStore

STATUSES = {
    "sent": Receipt.SENT,
    "delivered": Receipt.RECEIVED,
    "failed": Receipt.UNDELIVERED,
    "read": Receipt.READ,
}


def at(name: str) -> Source:
    return Source(Pointer((name,)))


JSON = ReceiptRules("json", STATUSES, at("status"), at("id"), at("code"), Items(()), frozenset({"21610"}))
FORM = ReceiptRules("form", STATUSES, at("Status"))
INBOUND = InboundRules("form", at("From"), at("Body"), words_of(["停止"], ["開始"]))
SOURCES = {
    "default": ReceiptSource(JSON, by_header("authorization", "Bearer t0ken")),
    "other": ReceiptSource(JSON, by_header("authorization", "Bearer t0ken")),
    "form": ReceiptSource(FORM, by_path("s3cret")),
}


class Gateway:
    """Reports to the listener as a gateway does."""

    def __init__(self, client: httpx.AsyncClient, app: ReceiptsApp) -> None:
        self.client = client
        self.app = app

    async def report(self, *reports: tuple[object, str], code: str = "", endpoint: str = "default", **more: Any) -> int:
        """Report statuses of ids; return the answer's status."""
        body = [{"id": identity, "status": status, "code": code} for identity, status in reports]
        headers = more.pop("headers", {"authorization": "Bearer t0ken"})
        answer = await self.client.post(f"/receipts/{endpoint}", json=body, headers=headers, **more)
        return answer.status_code

    def counted(self, result: str) -> float:
        """Return how many requests ended like this."""
        counts = self.app.samples()["mailing_receipts_total"]
        return sum(float(n) for (_, one), n in counts.items() if one == result and not isinstance(n, list))


@pytest.fixture
async def store(pool: asyncpg.Pool) -> ReceiptStore:
    database = Database(pool, 2.0)
    return ReceiptStore(database, await read_installation(database))


@pytest.fixture
async def gateway(pool: asyncpg.Pool, store: ReceiptStore) -> AsyncIterator[Gateway]:
    writer = ReceiptWriter(store)
    inbound = {"default": InboundSource(INBOUND, by_path("s3cret"))}
    database = Database(pool, 2.0)
    opt_outs = OptOutStore(database, await read_installation(database))
    app = ReceiptsApp(Sources(SOURCES, inbound), writer, opt_outs, "https://receipts.example")
    listener = ReceiptsListener(app)
    port = await listener.start("127.0.0.1", 0)
    async with writer.running(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield Gateway(client, app)
    await listener.stop()
