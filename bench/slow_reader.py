"""Readers that read nothing while mailings run at full rate: what they cost, and whom.

One watcher and a few readers that do read tell how late news are, first without and then with those
that do not. Both times mailings to all clients run one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from bench.measure import quantile, rss_mb, say
from bench.service import Service
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest, WatchMessagesResponse
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_pb2 import Mailing

_STUCK = 10
"""So many at once: what one of them holds is too little to be distinguished from everything else."""
_OTHERS = 5
_BEFORE_SECONDS = 20.0
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
_TAKES_LITTLE = [*_OPTIONS, ("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
"""Or gRPC would read ahead on behalf of a reader that does not."""


async def slow_reader(service: Service, seconds: float) -> dict[str, Any]:
    """Return what a reader that does not read holds, and how much later the others hear of a change."""
    async with grpc.aio.insecure_channel(service.address, _OPTIONS) as channel:
        without = await _lags_of_others(service, channel, _BEFORE_SECONDS)
        before = rss_mb(service.pid)
        async with _stuck(service) as calls:
            with_them = await _lags_of_others(service, channel, seconds)
            memory = rss_mb(service.pid) - before
            ends = [await _end_of(call) for call in calls]
    p99, p99_with = quantile(without, 0.99), quantile(with_them, 0.99)
    say(f"slow readers: others' p99 {p99 * 1000:.0f} ms without, {p99_with * 1000:.0f} ms with")
    return {
        "seconds": seconds,
        "memory_mb": round(max(memory, 0.0) / _STUCK, 2),
        "others_lag_p99_ms": round(p99_with * 1000, 1),
        "others_lag_ratio": round(p99_with / p99, 2),
        "ended": all(end == "RESOURCE_EXHAUSTED" for end in ends),
    }


@asynccontextmanager
async def _stuck(service: Service) -> AsyncIterator[list[Any]]:
    """Stream that take their first response and nothing more."""
    async with grpc.aio.insecure_channel(service.address, _TAKES_LITTLE) as channel:
        stub: Any = DeliveryServiceStub(channel)
        calls = [stub.WatchMessages(WatchMessagesRequest()) for _ in range(_STUCK)]
        await asyncio.gather(*(call.read() for call in calls))
        yield calls


async def _end_of(call: Any) -> str:
    """Read what is left of a stream and return its status, empty while it has none."""
    try:
        async with asyncio.timeout(5):
            while await call.read() is not grpc.aio.EOF:
                pass
    except TimeoutError:
        return ""
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def _lags_of_others(service: Service, channel: grpc.aio.Channel, seconds: float) -> list[float]:
    """Run mailings for so long; return how old changes were when those who read got them, in seconds."""
    lags: list[float] = []
    stub: Any = DeliveryServiceStub(channel)

    async def read() -> None:
        async for response in stub.WatchMessages(WatchMessagesRequest()):
            lags.extend(_ages(response))

    readers = [asyncio.create_task(read()) for _ in range(_OTHERS)]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        mailing = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
        await service.completed(mailing.id)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return lags


def _ages(response: WatchMessagesResponse) -> list[float]:
    if not response.changes:
        return []
    return [time.time() - response.changes[0].time.ToNanoseconds() / 1e9]
