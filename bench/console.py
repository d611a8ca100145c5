"""What open pages of the console cost a mailing at full rate, and how often they are drawn anew.

Mailings without pages and with `--pages` of each, which follow it live, take turns; `rate_kept` is the median of the
second rates by the first, and `page_cost` what is lost of it for each page.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx
from google.protobuf.timestamp_pb2 import Timestamp

from bench.endpoint import start_endpoint
from bench.measure import free_port, say
from bench.service import BenchmarkFailed, Service, running_service
from bench.throughput import import_all
from mailing.v1.mailing_pb2 import Mailing

_LEAD_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mailing: messages a second, the service's CPU time of one, and how often a page was drawn in a second."""

    rate: float
    cpu_us: float
    updates: float


class Pages:
    """Open pages of one mailing."""

    def __init__(self, url: str, mailing_id: int) -> None:
        self.updates = 0
        self._path = f"{url}/mailings/{mailing_id}/live"

    async def follow(self) -> None:
        """Follow one page until cancelled. Raise BenchmarkFailed where there is none."""
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client, client.stream("GET", self._path) as page:
            if page.status_code != 200:
                raise BenchmarkFailed(f"{self._path} answers {page.status_code}")
            async for line in page.aiter_lines():
                self.updates += not line  # behind each update


async def deliver(service: Service, url: str, count: int) -> Delivery:
    """Deliver one mailing while so many pages follow it."""
    start_at = int(time.time()) + _LEAD_SECONDS
    start = Timestamp(seconds=start_at)
    mailing = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT, start_time=start)
    pages = Pages(url, mailing.id)
    following = [asyncio.create_task(pages.follow()) for _ in range(count)]
    await asyncio.sleep(start_at - 0.2 - time.time())
    before, updates = service.cpu_seconds(), pages.updates
    progress = (await service.completed(mailing.id)).progress
    cpu = service.cpu_seconds() - before
    if count and pages.updates == updates:
        raise BenchmarkFailed("the pages were not drawn anew")
    for one in following:
        one.cancel()
    for ended in await asyncio.gather(*following, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise BenchmarkFailed(f"a page ended: {ended!r}")
    seconds = progress.last_delivery_time.ToNanoseconds() / 1e9 - start_at
    drawn = (pages.updates - updates) / count / seconds if count else 0.0
    return Delivery(progress.delivered / seconds, cpu / progress.delivered * 1e6, drawn)


async def measure(messages: int, pages: int, rounds: int, dispatchers: str) -> dict[str, Any]:
    """Run one service with its console, and return everything measured on them."""
    endpoint = start_endpoint()
    port = free_port()
    try:
        settings = {"MAILING_CONSOLE_LISTEN": f"127.0.0.1:{port}"}
        async with running_service(endpoint.url, ["--dispatchers", dispatchers], settings) as service:
            await import_all(service, messages)
            url = f"http://127.0.0.1:{port}"
            await deliver(service, url, 0)  # the first one warms everything up
            pairs = []
            for number in range(rounds):
                order = (0, pages) if number % 2 == 0 else (pages, 0)
                both = {count: await deliver(service, url, count) for count in order}
                pairs.append((both[0], both[pages]))
                say(f"round {number + 1}: {both[0].rate:,.0f} messages/s alone, {both[pages].rate:,.0f} with pages")
    finally:
        endpoint.stop()
    kept = median(beside.rate / alone.rate for alone, beside in pairs)
    return {
        "bench": "console",
        "messages": messages,
        "dispatchers": dispatchers,
        "pages": pages,
        "rounds": rounds,
        "rate_alone_per_s": round(median(alone.rate for alone, _ in pairs)),
        "rate_kept": round(kept, 3),
        "page_cost": round((1 - kept) / pages, 4),
        "cpu_us_per_message_alone": round(median(alone.cpu_us for alone, _ in pairs), 1),
        "cpu_us_per_message_beside": round(median(beside.cpu_us for _, beside in pairs), 1),
        "updates_per_s": round(median(beside.updates for _, beside in pairs), 1),
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench console", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="how many clients and messages (200000)")
    parser.add_argument("--pages", type=int, default=10, help="pages that follow each mailing (10)")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of mailings (4)")
    parser.add_argument("--dispatchers", default="auto", help="processes beside the service; auto: the default (auto)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.messages, options.pages, options.rounds, options.dispatchers))
