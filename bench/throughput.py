"""How fast a mailing is delivered, what each message costs, and whether ledger and endpoint agree.

They agree when the endpoint got every message of the ledger once, each with its phone and text; otherwise
the benchmark fails.

`delivered_per_s` counts from CreateMailing to the last delivery, both by the clock of the
ledger: expansion, the first request and the last record are inside. The rate between the
first and the last recorded delivery, and by the wall clock until the mailing is seen
COMPLETED, stand beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from bench.endpoint import message_ids, start_endpoint
from bench.measure import peak_rss_mb, say, service_pids
from bench.service import TEXT, BenchmarkFailed, Service, running_service
from bench.wrk import MESSAGE_ID, wrk_per_s
from mailing.v1.mailing_pb2 import Mailing


async def import_all(service: Service, messages: int) -> None:
    """Import `messages` clients, and let the database finish what that leaves behind."""
    say(f"importing {messages:,} clients")
    await service.import_clients(messages)
    # What autovacuum will write about the imported clients is a cost of the import.
    await service.postgres.execute("VACUUM (ANALYZE) clients")
    await service.postgres.execute("CHECKPOINT")


async def deliver(service: Service, messages: int, interval: float = 0.2) -> tuple[Mailing, dict[str, Any]]:
    """Deliver one SNAPSHOT mailing to all of these clients, and return it with its rates and costs.

    It is looked at every `interval` seconds.
    """
    wal, cpu, postgres_cpu = await service.wal_position(), service.cpu_seconds(), service.postgres_cpu_seconds()
    say(f"delivering {messages:,} messages")
    began = time.monotonic()
    created = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
    done = await service.completed(created.id, interval=interval)
    wall = time.monotonic() - began
    cpu_us = (service.cpu_seconds() - cpu) / messages * 1e6
    postgres_after = service.postgres_cpu_seconds()
    delivered, progress = done.progress.delivered, done.progress
    last = progress.last_delivery_time.ToNanoseconds() / 1e9
    first = progress.first_delivery_time.ToNanoseconds() / 1e9
    created_at = created.create_time.ToNanoseconds() / 1e9
    return done, {
        "messages": messages,
        "delivered": delivered,
        "attempts": progress.attempts,
        "delivered_per_s": round(delivered / (last - created_at)),
        "between_first_and_last_per_s": round(delivered / (last - first)) if last > first else None,
        "wall_per_s": round(delivered / wall),
        "cpu_us_per_message": round(cpu_us, 1),
        "postgres_cpu_us_per_message": None
        if postgres_after is None or postgres_cpu is None
        else round((postgres_after - postgres_cpu) / messages * 1e6, 1),
        "wal_bytes_per_message": round((await service.wal_position() - wal) / messages),
        "rss_mb": peak_rss_mb(service.pid),
        "dispatchers_rss_mb": [peak_rss_mb(pid) for pid in service_pids(service.pid)[1:]],
    }


def compare(ledger: Counter[int], endpoint: Counter[int]) -> dict[str, Any]:
    """Compare the ids delivered by the ledger with those the endpoint accepted, how often each."""
    endpoint = Counter({message_id: n for message_id, n in endpoint.items() if message_id != MESSAGE_ID})
    return {
        "settle_to_ledger_exact": ledger == endpoint,
        "endpoint_messages": len(endpoint),
        "endpoint_duplicates": endpoint.total() - len(endpoint),
    }


def wrong_bodies(requests: Iterable[tuple[int, bytes]], phones: Mapping[int, str]) -> int:
    """Return how many requests did not carry the id, the phone and the text of the message in their URL.

    `phones` are those of the clients, by their ids.
    """
    return sum(
        not _is_right(message_id, body, phones.get(message_id & 0xFFFFFFFF, ""))
        for message_id, body in requests
        if message_id != MESSAGE_ID
    )


def _is_right(message_id: int, body: bytes, phone: str) -> bool:
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return bool(phone) and sent == {"id": message_id, "phone": int(phone), "text": TEXT.format(phone=phone)}


def described_batches(url: str, most: int) -> str:
    """Return the path of a file that describes an endpoint at `url` which takes up to `most` messages a request."""
    with tempfile.NamedTemporaryFile("w", prefix="mailing-bench-", suffix=".toml", delete=False) as file:
        atexit.register(os.unlink, file.name)
        file.write(f'''[endpoints.default]
url = "{url}batch"
token = "bench"
json = [{{ id = "{{id:int}}", phone = "{{phone:int}}", text = "{{text}}" }}]
batch = {{ max = {most} }}
''')
        return file.name


def medians(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the lower median of each figure over several deliveries; of what is not a number, the last."""
    last = results[-1]
    return {
        key: statistics.median_low([result[key] for result in results]) if isinstance(value, int | float) else value
        for key, value in last.items()
    }


def beside(result: dict[str, Any], *yardsticks: float | None) -> dict[str, Any]:
    """Return a delivery's figures with wrk's better rate right before and right after it, where it is known."""
    yardstick = max((rate for rate in yardsticks if rate), default=None)
    if yardstick is None:
        return result
    ratio = round(result["delivered_per_s"] / yardstick, 3)
    return result | {"wrk_per_s": round(yardstick), "ratio_to_wrk": ratio}


async def measure(
    messages: int,
    dispatchers: int = 0,
    delay_ms: int = 0,
    kind: str = "auto",
    with_wrk: bool = True,
    concurrency: int = 1024,
    batch: int = 0,
    rounds: int = 1,
) -> dict[str, Any]:
    """Run one endpoint and one service and return everything measured on them."""
    endpoint = start_endpoint(kind=kind, delay_ms=delay_ms)
    try:
        arguments = ["--dispatchers", str(dispatchers)]
        settings = {"MAILING_ENDPOINT_MAX_CONCURRENCY": str(concurrency)}
        if batch:
            settings |= {"MAILING_ENDPOINTS_FILE": described_batches(endpoint.url, batch), "MAILING_ENDPOINT_URL": ""}
        async with running_service(endpoint.url, arguments, settings) as service:
            await import_all(service, messages)
            mailings, results = [], []
            before = await wrk_per_s(endpoint.url) if with_wrk else None
            for _ in range(rounds):
                mailing, result = await deliver(service, messages)
                after = await wrk_per_s(endpoint.url) if with_wrk else None
                mailings.append(mailing)
                results.append(beside(result, before, after))
                before = after
            ledger = Counter[int]()
            for mailing in mailings:
                ledger += await service.ledger_ids(mailing.id)
            compared = compare(ledger, Counter(message_ids(endpoint)))
            compared["wrong_bodies"] = wrong_bodies(endpoint.requests(), await service.phones())
        result = {
            "bench": "throughput",
            "dispatchers": dispatchers,
            "endpoint_delay_ms": delay_ms,
            "batch": batch,
            "rounds": rounds,
            **medians(results),
            **compared,
        }
        if not result["settle_to_ledger_exact"] or result["wrong_bodies"] or ledger.total() != rounds * messages:
            raise BenchmarkFailed(f"ledger and endpoint differ: {json.dumps(result)}")
        return result
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench throughput", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="how many clients and messages (100000)")
    parser.add_argument("--dispatchers", type=int, default=0, help="processes beside the service; 0: inside it (0)")
    parser.add_argument("--delay-ms", type=int, default=0, help="how long the endpoint takes to answer (0)")
    parser.add_argument("--endpoint", default="auto", choices=("auto", "nginx", "small"), help="which endpoint (auto)")
    parser.add_argument("--no-wrk", action="store_true", help="leave the comparison with wrk out")
    parser.add_argument("--concurrency", type=int, default=1024, help="most requests in flight at once (1024)")
    parser.add_argument("--batch", type=int, default=0, help="messages of a request; 0: one, by the protocol (0)")
    parser.add_argument("--rounds", type=int, default=1, help="deliveries in one run; figures are their medians (1)")
    options = parser.parse_args(arguments)
    return asyncio.run(
        measure(
            options.messages,
            options.dispatchers,
            options.delay_ms,
            options.endpoint,
            not options.no_wrk,
            options.concurrency,
            options.batch,
            options.rounds,
        )
    )
