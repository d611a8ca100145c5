"""What watchers cost the delivery, how late they are, and whether readers of messages get exactly all.

Mailings without watchers and with `--watchers` of each take turns; `rate_kept` is the median of
the second rates by the first. `lag_p99_ms` is how old deliveries were when a watcher heard of them.
Then `--readers` streams read a mailing's messages from the start, a reader reads nothing for a
minute, and `--idle` streams have nothing to read.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import grpc.aio

from bench.endpoint import start_endpoint
from bench.measure import cpu_seconds, quantile, rss_mb, say
from bench.monitors import Delivery, deliver
from bench.service import Service, running_service
from bench.slow_reader import slow_reader
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest, WatchMessagesResponse
from mailing.v1.mailing_pb2 import Mailing

_WATCH_MESSAGES = "/mailing.v1.DeliveryService/WatchMessages"
_CHANNELS = 20
_IDLE_CHANNELS = 100
_IDLE_SECONDS = 20.0


class Callers:
    """Streams over several connections, their responses as bytes: parsing is the callers' business."""

    def __init__(self, address: str, channels: int) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(channels)]

    def open(self, number: int, method: str, request: Any) -> Any:
        """Open the stream of this number."""
        channel = self._channels[number % len(self._channels)]
        return channel.unary_stream(method, request_serializer=lambda one: one.SerializeToString())(request)

    async def close(self) -> None:
        """End all streams."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def watched(service: Service, watchers: int, rounds: int) -> tuple[dict[str, Any], Mailing]:
    """Deliver mailings without and with watchers in turn; return what that cost, and the last mailing."""
    pairs: list[tuple[Delivery, Delivery]] = []
    await deliver(service, 0)  # the first one warms everything up
    before = rss_mb(service.pid)
    for number in range(rounds):
        # In turn, and each first as often as the other: a service and a machine change while they work.
        order = (0, watchers) if number % 2 == 0 else (watchers, 0)
        both = {count: await deliver(service, count) for count in order}
        alone, together = both[0], both[watchers]
        pairs.append((alone, together))
        say(f"round {number + 1}: {alone.rate:,.0f} messages/s alone, {together.rate:,.0f} watched")
    lags = [lag for _, together in pairs for lag in together.lags]
    figures = {
        "watchers": watchers,
        "rounds": rounds,
        "rate_alone_per_s": round(median(alone.rate for alone, _ in pairs)),
        "rate_watched_per_s": round(median(together.rate for _, together in pairs)),
        "rate_kept": round(median(together.rate / alone.rate for alone, together in pairs), 3),
        "rates_kept": [round(together.rate / alone.rate, 3) for alone, together in pairs],
        "cpu_us_per_message_alone": round(median(alone.cpu_us_per_message for alone, _ in pairs), 1),
        "cpu_us_per_message_watched": round(median(together.cpu_us_per_message for _, together in pairs), 1),
        "lag_p50_ms": round(quantile(lags, 0.5) * 1000, 1),
        "lag_p99_ms": round(quantile(lags, 0.99) * 1000, 1),
        "states": sum(together.states for _, together in pairs),
        "memory_mb": round(max(together.peak_mb for _, together in pairs) - before, 1),
    }
    return figures, pairs[-1][1].mailing


async def read_all(callers: Callers, readers: int, mailing: Mailing) -> tuple[float, bool]:
    """Have readers read all changes; return changes per second of all, and whether each got exactly all."""
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


async def idle(service: Service, streams: int) -> dict[str, Any]:
    """Open streams on which nothing happens; return what each costs."""
    callers = Callers(service.address, _IDLE_CHANNELS)
    before = rss_mb(service.pid)
    calls = [callers.open(number, _WATCH_MESSAGES, WatchMessagesRequest()) for number in range(streams)]
    for start in range(0, streams, 500):
        await asyncio.gather(*(call.read() for call in calls[start : start + 500]))
    connections = await service.postgres.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'cl%'")
    cpu = cpu_seconds(service.pid)
    await asyncio.sleep(_IDLE_SECONDS)
    cpu = cpu_seconds(service.pid) - cpu
    memory = rss_mb(service.pid) - before
    await callers.close()
    return {
        "streams": streams,
        "memory_mb": round(memory, 1),
        "cpu_percent": round(cpu / _IDLE_SECONDS * 100, 1),
        "connections": connections,
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run one service and return everything measured on it."""
    endpoint = start_endpoint()
    arguments = ["--dispatchers", str(options.dispatchers)]
    result = {"bench": "watchers", "messages": options.messages, "dispatchers": options.dispatchers}
    try:
        async with running_service(endpoint.url, arguments) as service:
            await service.import_clients(options.messages)
            figures, mailing = await watched(service, options.watchers, options.rounds)
            result |= figures
            if options.readers:
                callers = Callers(service.address, _CHANNELS)
                changes_per_s, exact = await read_all(callers, options.readers, mailing)
                await callers.close()
                say(f"read: {changes_per_s:,.0f} changes/s")
                result |= {"readers": options.readers, "changes_per_s": round(changes_per_s), "exact": exact}
            if options.slow_seconds:
                result["slow_reader"] = await slow_reader(service, options.slow_seconds)
            if options.idle:
                result["idle_streams"] = await idle(service, options.idle)
            return result
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench watchers", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="how many clients and messages (200000)")
    parser.add_argument("--watchers", type=int, default=1000, help="streams that watch the mailing (1000)")
    parser.add_argument("--rounds", type=int, default=4, help="mailings without and with watchers (4 of each)")
    parser.add_argument("--readers", type=int, default=100, help="streams that read all messages; 0: none (100)")
    parser.add_argument(
        "--slow-seconds", type=float, default=65.0, help="how long a reader reads nothing; 0: there is none (65)"
    )
    parser.add_argument("--idle", type=int, default=10_000, help="streams on which nothing happens; 0: none (10000)")
    parser.add_argument("--dispatchers", type=int, default=0, help="processes beside the service; 0: inside it (0)")
    return asyncio.run(measure(parser.parse_args(arguments)))
