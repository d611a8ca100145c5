"""Receipts to a service that is killed: what was answered with a 2xx is there, whatever else is not."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import asyncpg
import httpx

from mailing import new_mailing
from mailing.v1.mailing_pb2 import Mailing
from tests.e2e.conftest import TOKEN, Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import add_clients
from tests.support.eventually import eventually, eventually_sync

FILE = """
[endpoints.default]
url = "{url}"
token = "{token}"

[endpoints.default.receipts]
parse = "json"
items = ""
id = "id"
status = "status"
delivered = ["delivered"]
verify = {{ bearer = "t0ken" }}
"""
COUNT = 3000


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def report(port: int, ids: list[int], taken: list[int]) -> None:
    """Report on ids one by one, over several connections, until the service is gone; add to `taken` those taken."""
    left = iter(ids)

    async def one() -> None:
        headers = {"authorization": "Bearer t0ken"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, verify=False
        ) as client:
            for identity in left:
                body = [{"id": str(identity), "status": "delivered"}]
                try:
                    answer = await client.post("/receipts/default", json=body)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    taken.append(identity)

    await asyncio.gather(*(one() for _ in range(8)))


def test_no_receipt_is_lost_after_its_2xx(
    start_service: StartService, endpoint: Endpoint, database_dsn: str, tmp_path: Path
) -> None:
    """Fails when a receipt is answered before it is in the database."""
    port, path = free_port(), tmp_path / "endpoints.toml"
    path.write_text(FILE.format(url=endpoint.url, token=TOKEN))
    settings = {
        "MAILING_ENDPOINT_URL": "",
        "MAILING_ENDPOINT_TOKEN": "",
        "MAILING_ENDPOINTS_FILE": str(path),
        "MAILING_RECEIPTS_LISTEN": f"127.0.0.1:{port}",
    }
    first = start_service(**settings)
    add_clients(first.client, COUNT)
    mailing = first.client.create_mailing(new_mailing("Hello", snapshot=True)).id
    eventually_sync(lambda: first.client.get_mailing(mailing).state, lambda state: state == Mailing.STATE_COMPLETED)
    ids = [message.id for message in first.client.list_messages(mailing_id=mailing)]

    taken: list[int] = []

    async def answered() -> int:
        return len(taken)

    async def interrupted() -> None:
        reporting = asyncio.create_task(report(port, ids, taken))
        await eventually(answered, lambda count: count > 100)
        first.kill()
        await reporting

    asyncio.run(interrupted())
    assert 0 < len(taken) < COUNT

    async def recorded() -> set[int]:
        connection = await asyncpg.connect(database_dsn)
        try:
            rows = await connection.fetch("SELECT mailing_id << 32 | client_id AS id FROM receipts WHERE receipt = 2")
        finally:
            await connection.close()
        return {row["id"] for row in rows}

    assert {*taken} <= asyncio.run(recorded())
