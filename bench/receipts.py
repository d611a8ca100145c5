"""What receipts cost, alone and beside a mailing at full rate, and whether each that was accepted is recorded.

Receipts come one in a request, as most gateways send them, or some, at a steady rate over many connections. They
are about the messages of a mailing that was delivered before.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.endpoint import start_endpoint
from bench.measure import free_port, say
from bench.service import BenchmarkFailed, Service, running_service
from bench.throughput import deliver, import_all

TICK = 0.01
SIZE = "SELECT pg_table_size('receipts'), pg_indexes_size('receipts')"

_FILE = """
[endpoints.default]
url = "{url}"
token = "bench"

[endpoints.default.receipts]
parse = "json"
items = ""
id = "/id"
status = "/status"
delivered = ["delivered"]
verify = {{ bearer = "secret" }}
"""
_HEAD = (
    "POST /receipts/default HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer secret\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class Manner(NamedTuple):
    """How a gateway reports: so many a second at the most, over so many connections, so many in a request."""

    rate: float
    connections: int
    per_request: int


class _Connection(asyncio.Protocol):
    """One kept-alive connection of the gateway, with one request under way at most."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._transport: asyncio.WriteTransport | None = None
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._gateway.idle.append(self)

    def send(self, message_ids: Sequence[int]) -> None:
        """Report on messages, in one request."""
        body = ",".join(f'{{"id": "{one}", "status": "delivered"}}' for one in message_ids)
        assert self._transport is not None
        self.sent = len(message_ids)
        self._transport.write(f"{_HEAD.format(length=len(body) + 2)}[{body}]".encode())

    def data_received(self, data: bytes) -> None:
        self._gateway.answered(data, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gateway.disconnected()


class Gateway:
    """Reports on messages, `rate` of them a second if the service keeps up."""

    def __init__(self, port: int, message_ids: Sequence[int], how: Manner) -> None:
        self.idle: deque[_Connection] = deque()  # in turn: one that says nothing for long is closed
        self.accepted = self.lost = 0
        self._port = port
        self._left = iter(message_ids)
        self._how = how
        self._refused = b""
        self._over = False
        self._ended = asyncio.Event()

    def answered(self, answer: bytes, connection: _Connection) -> None:
        """Count an answer."""
        if answer.startswith(b"HTTP/1.1 200"):
            self.accepted += connection.sent
        else:
            self._refused = answer
        self.idle.append(connection)
        self._end()

    def disconnected(self) -> None:
        """Count a connection that was lost."""
        self.lost += 1
        self._end()

    def _end(self) -> None:
        if self._over and len(self.idle) + self.lost >= self._how.connections:
            self._ended.set()

    async def report(self, until: asyncio.Event) -> float:
        """Report until the event, or until nothing is left, and return the seconds. Raise BenchmarkFailed."""
        loop = asyncio.get_running_loop()
        for _ in range(self._how.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        began, sent, more, each = time.monotonic(), 0, True, self._how.per_request
        while more and not until.is_set():
            owed = int((time.monotonic() - began) * self._how.rate) - sent
            for _ in range(min(owed // each, len(self.idle))):
                reported = [*islice(self._left, each)]
                if not reported:
                    more = False
                    break
                self.idle.popleft().send(reported)
                sent += len(reported)
            await asyncio.sleep(TICK)
        took = time.monotonic() - began
        self._over = True
        self._end()
        await self._ended.wait()
        if self.lost or self._refused:
            raise BenchmarkFailed(f"receipts were not taken: {self.lost} connections lost, {self._refused!r}")
        return took


async def alone(service: Service, gateway: Gateway) -> dict[str, Any]:
    """Report with nothing beside it, and return what a receipt costs."""
    await service.postgres.execute("CHECKPOINT")
    wal, cpu, postgres = await service.wal_position(), service.cpu_seconds(), service.postgres_cpu_seconds()
    took = await gateway.report(asyncio.Event())
    count, postgres_after = gateway.accepted, service.postgres_cpu_seconds()
    table, indexes = (await service.postgres.fetch(SIZE))[0]
    return {
        "alone_per_s": round(count / took),
        "cpu_us_per_receipt": round((service.cpu_seconds() - cpu) / count * 1e6, 1),
        "postgres_cpu_us_per_receipt": None
        if postgres is None or postgres_after is None
        else round((postgres_after - postgres) / count * 1e6, 1),
        "wal_bytes_per_receipt": round((await service.wal_position() - wal) / count),
        "table_bytes_per_receipt": round(table / count),
        "index_bytes_per_receipt": round(indexes / count),
    }


async def beside(service: Service, gateway: Gateway, messages: int) -> dict[str, Any]:
    """Report while a mailing is delivered, and return both rates."""
    over = asyncio.Event()
    reporting = asyncio.create_task(gateway.report(over))
    _, delivery = await deliver(service, messages)
    over.set()
    took = await reporting
    return {"beside_per_s": round(gateway.accepted / took), "delivered_per_s": delivery["delivered_per_s"]}


@asynccontextmanager
async def _folder_with_file(url: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="mailing-bench-") as folder:
        path = Path(folder) / "endpoints.toml"
        path.write_text(_FILE.format(url=url))
        yield path


async def measure(messages: int, how: Manner, dispatchers: str) -> dict[str, Any]:
    """Run one service with a gateway that reports, and return everything measured on it."""
    endpoint = start_endpoint()
    try:
        async with _folder_with_file(endpoint.url) as path:
            port = free_port()
            settings = {
                "MAILING_ENDPOINT_URL": "",
                "MAILING_ENDPOINT_TOKEN": "",
                "MAILING_ENDPOINTS_FILE": str(path),
                "MAILING_RECEIPTS_LISTEN": f"127.0.0.1:{port}",
            }
            async with running_service(endpoint.url, ["--dispatchers", dispatchers], settings) as service:
                await import_all(service, messages)
                mailing, quiet = await deliver(service, messages)
                ids = sorted(await service.ledger_ids(mailing.id))
                some = min(len(ids) // 2, int(10 * how.rate))
                say(f"reporting on {some:,} messages")
                first = Gateway(port, ids[:some], how)
                result = await alone(service, first)
                second = Gateway(port, ids[some:], how)
                result |= await beside(service, second, messages)
                recorded = await service.postgres.fetchval("SELECT count(*) FROM receipts WHERE receipt > 0")
                if recorded != first.accepted + second.accepted:
                    raise BenchmarkFailed(f"{recorded} receipts are recorded of {first.accepted + second.accepted}")
        return {
            "bench": "receipts",
            "messages": messages,
            "dispatchers": dispatchers,
            "wanted_per_s": how.rate,
            "connections": how.connections,
            "per_request": how.per_request,
            **result,
            "rate_kept": round(result["delivered_per_s"] / quiet["delivered_per_s"], 2),
            "recorded": recorded,
        }
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench receipts", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="how many clients and messages (200000)")
    parser.add_argument("--rate", type=float, default=6000.0, help="receipts a second that the gateway wants (6000)")
    parser.add_argument("--dispatchers", default="auto", help="processes beside the service; auto: the default (auto)")
    parser.add_argument("--connections", type=int, default=512, help="connections of the gateway (512)")
    parser.add_argument("--per-request", type=int, default=1, help="receipts in a request (1)")
    options = parser.parse_args(arguments)
    how = Manner(options.rate, options.connections, options.per_request)
    return asyncio.run(measure(options.messages, how, options.dispatchers))
