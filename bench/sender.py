"""The senders alone, without ledger and pipeline: requests a second and CPU for each.

wrk, the fast sender and the httpx sender make the same requests to the same endpoint, one
after the other, with as many under way at a time. wrk runs before and after; the better run
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import uvloop

from bench.endpoint import RunningEndpoint, message_ids, start_endpoint
from bench.measure import say
from bench.wrk import CONNECTIONS, MESSAGE_ID, wrk_per_s
from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.httpx_sender import HttpxSender
from dispatcher.model.endpoints import Endpoint
from dispatcher.ports import Sender
from dispatcher.verdict import judge

_PHONE = "79000000000"
_TEXT = "Hello 79000000000"
_PATIENCE = 60.0  # seconds; the slow sender keeps requests waiting


class Rate(NamedTuple):
    """What a sender made of it."""

    per_s: float
    cpu_us_per_request: float


async def _measure(make: Callable[[Endpoint], Sender], url: str, first_id: int, requests: int, at_a_time: int) -> Rate:
    endpoint = Endpoint("bench", url, "bench", total_timeout=_PATIENCE, max_concurrency=at_a_time)
    sender = make(endpoint)
    ids = iter(range(first_id, first_id + requests))
    failed = 0
    ends_at = time.monotonic() + 3600.0

    def may_start() -> bool:  # as the dispatcher's, which looks at the clock
        return time.monotonic() < ends_at

    async def worker() -> None:
        nonlocal failed
        for message_id in ids:
            answer = await ask(sender, message_id, _PHONE, _TEXT, may_start=may_start)
            failed += answer is None or not judge(answer).delivered

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_a_time)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await sender.close()
    if failed:
        raise RuntimeError(f"{make.__name__}: {failed:,} of {requests:,} requests failed")
    rate = Rate(requests / took, cpu / requests * 1e6)
    say(f"  {make.__name__}: {rate.per_s:,.0f}/s, {rate.cpu_us_per_request:.2f} us of CPU each")
    return rate


async def measure(endpoint: RunningEndpoint, requests: int, httpx_requests: int, at_a_time: int) -> dict[str, Any]:
    """Run all of them and return the rates, and whether the endpoint got exactly what was sent."""
    before = await wrk_per_s(endpoint.url, at_a_time)
    fast = await _measure(FastSender, endpoint.url, 1, requests, at_a_time)
    httpx = await _measure(HttpxSender, endpoint.url, requests + 1, httpx_requests, at_a_time)
    after = await wrk_per_s(endpoint.url, at_a_time)
    received = sorted(message_id for message_id in message_ids(endpoint) if message_id != MESSAGE_ID)
    result: dict[str, Any] = {
        "bench": "sender",
        "connections": at_a_time,
        "per_s": {"fast": round(fast.per_s), "httpx": round(httpx.per_s)},
        "cpu_us_per_request": {"fast": round(fast.cpu_us_per_request, 2), "httpx": round(httpx.cpu_us_per_request, 2)},
        "endpoint_exact": received == list(range(1, requests + httpx_requests + 1)),
    }
    wrk = max((rate for rate in (before, after) if rate), default=None)
    if wrk is not None:
        result["per_s"]["wrk"] = round(wrk)
        result["ratios_to_wrk"] = {"fast": round(fast.per_s / wrk, 3), "httpx": round(httpx.per_s / wrk, 5)}
    return result


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench sender", description=__doc__)
    parser.add_argument("--requests", type=int, default=300_000, help="how many by the fast sender (300000)")
    parser.add_argument("--httpx-requests", type=int, default=2_000, help="how many by the httpx sender (2000)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="how many at a time (256)")
    parser.add_argument("--endpoint", default="auto", choices=("auto", "nginx", "small"), help="which endpoint (auto)")
    options = parser.parse_args(arguments)
    endpoint = start_endpoint(options.endpoint)
    try:
        return uvloop.run(measure(endpoint, options.requests, options.httpx_requests, options.connections))
    finally:
        endpoint.stop()
