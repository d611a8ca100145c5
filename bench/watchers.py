"""What watchers cost the delivery, how late they are, and whether readers of messages get exactly all.

One mailing runs without watchers and one with `--watchers` of it; `rate_kept` is the second
rate by the first. `lag_p99_ms` is how old the newest delivery was in a state when it came to a
watcher. Then `--readers` streams read the mailing's messages from the start.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from bench.endpoint import start_endpoint
from bench.measure import cpu_seconds, quantile, say
from bench.service import Service, running_service
from mailing.v1.delivery_service_pb2 import (
    WatchMailingRequest,
    WatchMailingResponse,
    WatchMessagesRequest,
    WatchMessagesResponse,
)
from mailing.v1.mailing_pb2 import Mailing

_WATCH_MAILING = "/mailing.v1.DeliveryService/WatchMailing"
_WATCH_MESSAGES = "/mailing.v1.DeliveryService/WatchMessages"
_CHANNELS = 20
_SAMPLED = 20
_IDLE_SECONDS = 20.0


class Callers:
    """Streams over several connections, their responses as bytes: parsing is the callers' business."""

    def __init__(self, address: str) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(_CHANNELS)]

    def open(self, number: int, method: str, request: Any) -> Any:
        """Opens the stream of this number."""
        channel = self._channels[number % len(self._channels)]
        return channel.unary_stream(method, request_serializer=lambda one: one.SerializeToString())(request)

    async def close(self) -> None:
        """Ends all streams."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def rss_mb(pid: int) -> float:
    """Returns the memory a process has now, in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def rate_of(mailing: Mailing) -> float:
    """Returns deliveries per second, from creation to the last one."""
    spent = mailing.progress.last_delivery_time.ToNanoseconds() - mailing.create_time.ToNanoseconds()
    return mailing.progress.delivered / spent * 1e9


async def deliver(service: Service, callers: Callers, watchers: int) -> tuple[Mailing, list[float], int]:
    """Runs a mailing with watchers; returns it, how old the sampled states were, and how many states came."""
    lags: list[float] = []
    states = 0
    mailing = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)

    async def watch(number: int) -> None:
        nonlocal states
        async for body in callers.open(number, _WATCH_MAILING, WatchMailingRequest(mailing_id=mailing.id)):
            states += 1
            if number % _SAMPLED == 0:
                seen = WatchMailingResponse.FromString(body).mailing
                if seen.state == Mailing.STATE_RUNNING and seen.progress.rate_per_second and seen.progress.pending:
                    lags.append(time.time() - seen.progress.last_delivery_time.ToNanoseconds() / 1e9)

    await asyncio.gather(*(watch(number) for number in range(watchers)))
    return await service.completed(mailing.id), lags, states


async def read_all(callers: Callers, readers: int, mailing: Mailing) -> tuple[float, bool]:
    """Has readers read all changes; returns changes per second of all, and whether each got exactly all."""
    wanted = mailing.progress.total

    async def read(number: int) -> bool:
        ids: list[int] = []
        request = WatchMessagesRequest(mailing_id=mailing.id, from_start=True)
        call = callers.open(number, _WATCH_MESSAGES, request)
        async for body in call:
            ids += [change.message_id for change in WatchMessagesResponse.FromString(body).changes]
            if len(ids) >= wanted:
                call.cancel()
                break
        return len(ids) == len(set(ids)) == wanted

    began = time.monotonic()
    exact = await asyncio.gather(*(read(number) for number in range(readers)))
    return readers * wanted / (time.monotonic() - began), all(exact)


async def idle(service: Service, callers: Callers, streams: int) -> dict[str, Any]:
    """Opens streams on which nothing happens; returns what each costs."""
    before = rss_mb(service.pid)
    calls = [callers.open(number, _WATCH_MESSAGES, WatchMessagesRequest()) for number in range(streams)]
    for start in range(0, streams, 500):
        await asyncio.gather(*(call.read() for call in calls[start : start + 500]))
    connections = await service.postgres.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'cl%'")
    cpu = cpu_seconds(service.pid)
    await asyncio.sleep(_IDLE_SECONDS)
    cpu = cpu_seconds(service.pid) - cpu
    return {
        "streams": streams,
        "memory_mb": round(rss_mb(service.pid) - before, 1),
        "cpu_percent": round(cpu / _IDLE_SECONDS * 100, 1),
        "connections": connections,
    }


async def measure(messages: int, watchers: int, readers: int, streams: int, dispatchers: int) -> dict[str, Any]:
    """Runs one service and returns everything measured on it."""
    endpoint = start_endpoint()
    arguments = ["--dispatchers", str(dispatchers)] if dispatchers else []
    try:
        async with running_service(endpoint.url, arguments) as service:
            await service.import_clients(messages)
            callers = Callers(service.address)
            alone, _, _ = await deliver(service, callers, 0)
            say(f"alone: {rate_of(alone):,.0f} messages/s")
            before = rss_mb(service.pid)
            watched, lags, states = await deliver(service, callers, watchers)
            memory = rss_mb(service.pid) - before
            say(f"watched: {rate_of(watched):,.0f} messages/s, {states:,} states handed on")
            changes_per_s, exact = await read_all(callers, readers, watched)
            say(f"read: {changes_per_s:,.0f} changes/s")
            result = {
                "bench": "watchers",
                "messages": messages,
                "watchers": watchers,
                "dispatchers": dispatchers,
                "rate_alone_per_s": round(rate_of(alone)),
                "rate_watched_per_s": round(rate_of(watched)),
                "rate_kept": round(rate_of(watched) / rate_of(alone), 3),
                "lag_p99_ms": round(quantile(lags, 0.99) * 1000),
                "states": states,
                "memory_mb": round(memory, 1),
                "readers": readers,
                "changes_per_s": round(changes_per_s),
                "exact": exact,
                "idle_streams": await idle(service, callers, streams) if streams else None,
            }
            await callers.close()
            return result
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench watchers", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="how many clients and messages (200000)")
    parser.add_argument("--watchers", type=int, default=1000, help="streams that watch the mailing (1000)")
    parser.add_argument("--readers", type=int, default=100, help="streams that read all messages (100)")
    parser.add_argument("--idle", type=int, default=10_000, help="streams on which nothing happens (10000)")
    parser.add_argument("--dispatchers", type=int, default=0, help="processes beside the service; 0: inside it (0)")
    chosen = parser.parse_args(arguments)
    return asyncio.run(measure(chosen.messages, chosen.watchers, chosen.readers, chosen.idle, chosen.dispatchers))
