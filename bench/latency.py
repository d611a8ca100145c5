"""How soon: the first request after CreateMailing, after a start time, and the API under full load.

`start_*` counts from CreateMailing's return on an idle service to the first byte of the first
request at the endpoint (0 when the request was there before the return), `due_*` from a
mailing's start time to the same. Both are read off the one clock of the machine. `api_*` is
the time of one GetMailing at a time for each of `--callers` while a mailing is delivered at full speed,
and `api_per_s` how many of them there were.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bench.endpoint import start_endpoint
from bench.measure import quantile, say
from bench.service import Service, running_service
from bench.stamping_endpoint import StampingEndpoint, stamping_endpoint
from mailing.v1.mailing_pb2 import Mailing

SNAPSHOT = Mailing.AUDIENCE_MODE_SNAPSHOT


async def start_seconds(service: Service, endpoint: StampingEndpoint, times: int) -> list[float]:
    """Return, for each of `times` mailings to one client, the time from its creation to its request."""
    found = []
    for _ in range(times):
        # Any moment between two looks for work is as likely as any other.
        await asyncio.sleep(random.uniform(0.05, 0.6))
        mailing = await service.create_mailing(tags=["one"], audience_mode=SNAPSHOT)
        returned = time.time()
        found.append(max(0.0, await endpoint.stamp(mailing.id) - returned))
    return found


async def due_seconds(service: Service, endpoint: StampingEndpoint, times: int) -> list[float]:
    """Return, for each of `times` scheduled mailings, the time from its start to its request."""
    first = time.time() + 5.0
    starts = [first + i * 0.2 + random.uniform(0, 0.2) for i in range(times)]
    mailings = [
        await service.create_mailing(
            tags=["one"], audience_mode=SNAPSHOT, start_time=Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9))
        )
        for at in starts
    ]
    await asyncio.sleep(max(0.0, starts[-1] - time.time()))
    return [await endpoint.stamp(mailing.id) - at for mailing, at in zip(mailings, starts, strict=True)]


async def api_seconds(service: Service, callers: int) -> tuple[list[float], float]:
    """Return the times of GetMailing calls, one at a time for each caller, while a mailing is delivered.

    The second value is how many of them there were a second.
    """
    mailing = await service.create_mailing(tags=["many"], audience_mode=SNAPSHOT)
    found: list[float] = []
    ended: list[float] = []

    async def call() -> None:
        while True:
            began = time.perf_counter()
            seen = await service.get_mailing(mailing.id)
            if seen.state == Mailing.STATE_COMPLETED:
                return
            if seen.progress.delivered:
                ended.append(time.perf_counter())
                found.append(ended[-1] - began)
            await asyncio.sleep(0.002)

    await asyncio.gather(*(call() for _ in range(callers)))
    return found, len(ended) / (max(ended) - min(ended))


async def measure(times: int, messages: int, callers: int, dispatchers: int) -> dict[str, Any]:
    """Measure the three on services of their own."""
    arguments = ["--dispatchers", str(dispatchers)]
    async with stamping_endpoint() as stamping, running_service(stamping.url, arguments) as service:
        await service.import_clients(1, tag="one")
        say(f"starting {times} mailings on an idle service")
        start = await start_seconds(service, stamping, times)
        say(f"waiting for {times} scheduled mailings")
        due = await due_seconds(service, stamping, times)
    endpoint = start_endpoint()
    try:
        async with running_service(endpoint.url, arguments) as service:
            await service.import_clients(messages, tag="many")
            say(f"calling the API while {messages:,} messages are delivered")
            api, per_s = await api_seconds(service, callers)
    finally:
        endpoint.stop()
    result: dict[str, Any] = {"bench": "latency", "dispatchers": dispatchers, "mailings": times}
    result |= {"api_callers": callers, "api_calls": len(api), "api_per_s": round(per_s, 1)}
    for name, values in (("start", start), ("due", due), ("api", api)):
        result |= {f"{name}_p{share}_ms": round(quantile(values, share / 100) * 1000, 2) for share in (50, 99)}
    return result


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how many mailings are started and how many due (100)")
    parser.add_argument(
        "--messages", type=int, default=200_000, help="messages delivered beside the API calls (200000)"
    )
    parser.add_argument("--callers", type=int, default=1, help="how many call the API, each one call at a time (1)")
    parser.add_argument("--dispatchers", type=int, default=0, help="processes beside the service; 0: inside it (0)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.times, options.messages, options.callers, options.dispatchers))
