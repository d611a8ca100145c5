"""Whether a service that works for long stays as small as it was.

Mailings to all clients follow one another. Each is watched by `--watchers` streams; half of them
vanish in the middle of it. Readers of all messages stay the whole time. The service's memory is
sampled; the first three tenths of the time, in which caches fill, do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import Any

import grpc.aio

from bench.endpoint import start_endpoint
from bench.http2 import Connection, connect
from bench.measure import rss_mb, say, service_pids
from bench.monitors import WATCH_MAILING
from bench.service import Service, running_service
from mailing.v1.delivery_service_pb2 import WatchMailingRequest, WatchMailingResponse, WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_pb2 import Mailing

_READERS = 10
_PER_CONNECTION = 25
_SAMPLE_SECONDS = 2.0
_WARM_UP = 0.3


@dataclass(slots=True)
class _Course:
    """What happened so far. `samples` are minutes since the beginning and megabytes."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    mailings: int = 0
    states: int = 0
    changes: int = 0


async def _sample(service: Service, course: _Course) -> None:
    began, told = time.monotonic(), 0
    while True:
        minutes = (time.monotonic() - began) / 60
        course.samples.append((minutes, sum(rss_mb(pid) for pid in service_pids(service.pid))))
        if minutes >= told + 1:
            told += 1
            say(f"minute {told}: {course.samples[-1][1]:.1f} MB, {course.mailings} mailings")
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _read(channel: grpc.aio.Channel, course: _Course) -> None:
    stub: Any = DeliveryServiceStub(channel)
    async for response in stub.WatchMessages(WatchMessagesRequest()):
        course.changes += len(response.changes)


async def _mailing(service: Service, watchers: int, course: _Course) -> None:
    """Deliver one mailing; every other connection of its watchers is cut when a part is delivered."""
    mailing = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
    request = WatchMailingRequest(mailing_id=mailing.id).SerializeToString()

    delivering = asyncio.Event()

    def count(body: bytes) -> None:
        course.states += 1
        if not delivering.is_set() and WatchMailingResponse.FromString(body).mailing.progress.delivered:
            delivering.set()

    connections: list[Connection] = []
    for number in range(watchers):
        if number % _PER_CONNECTION == 0:
            connections.append(await connect(service.address))
        connections[-1].open(WATCH_MAILING, request, count)
    async with asyncio.timeout(60):
        await delivering.wait()
    for connection in connections[::2]:
        connection.close()
    await service.completed(mailing.id)
    for connection in connections:
        connection.close()
    course.mailings += 1


async def measure(minutes: float, clients: int, watchers: int, every: float) -> dict[str, Any]:
    """Run one service for so long and return how its memory went."""
    endpoint = start_endpoint()
    course = _Course()
    try:
        async with running_service(endpoint.url) as service, grpc.aio.insecure_channel(service.address) as channel:
            await service.import_clients(clients)
            tasks = [asyncio.create_task(_sample(service, course))]
            tasks += [asyncio.create_task(_read(channel, course)) for _ in range(_READERS)]
            ends = time.monotonic() + minutes * 60
            while time.monotonic() < ends:
                begun = time.monotonic()
                await _mailing(service, watchers, course)
                await asyncio.sleep(max(0.0, begun + every - time.monotonic()))
                for task in tasks:
                    if task.done():
                        task.result()  # it has failed: without it nothing is measured
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        endpoint.stop()
    settled = [(at, size) for at, size in course.samples if at >= minutes * _WARM_UP]
    edge = max(1, len(settled) // 10)
    return {
        "bench": "soak",
        "minutes": minutes,
        "mailings": course.mailings,
        "messages": course.mailings * clients,
        "states": course.states,
        "changes_read": course.changes,
        "rss_first_mb": round(median(size for _, size in settled[:edge]), 1),
        "rss_last_mb": round(median(size for _, size in settled[-edge:]), 1),
        "slope_mb_per_minute": round(linear_regression(*zip(*settled, strict=True)).slope, 3),
        "rss_mb_by_minute": [
            round(median(size for at, size in course.samples if int(at) == minute), 1)
            for minute in sorted({int(at) for at, _ in course.samples})
        ],
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument(
        "--clients", type=int, default=20_000, help="how many clients, and messages of a mailing (20000)"
    )
    parser.add_argument("--watchers", type=int, default=200, help="streams that watch each mailing (200)")
    parser.add_argument("--every", type=float, default=5.0, help="least seconds from one mailing to the next (5)")
    chosen = parser.parse_args(arguments)
    return asyncio.run(measure(chosen.minutes, chosen.clients, chosen.watchers, chosen.every))
