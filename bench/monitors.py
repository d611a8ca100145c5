"""A mailing delivered while many watch it: its rate, what it cost, how old the news were.

The mailing starts when all watchers are there, so that opening streams is not part of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from bench.http2 import connect
from bench.measure import rss_mb
from bench.service import BenchmarkFailed, Service
from mailing.v1.delivery_service_pb2 import WatchMailingRequest, WatchMailingResponse
from mailing.v1.mailing_pb2 import Mailing

WATCH_MAILING = "/mailing.v1.DeliveryService/WatchMailing"
_CONNECTIONS = 20
_SAMPLED = 20
"""Every so many-th watcher reads what it gets; the others only count."""
_POINTS = 10
_LEAD_SECONDS = 4


@dataclass(slots=True)
class Delivery:
    """One mailing and what was seen of it. `lags`: how old deliveries were when a watcher heard of them, in seconds."""

    mailing: Mailing = field(default_factory=Mailing)
    lags: list[float] = field(default_factory=list)
    states: int = 0
    peak_mb: float = 0.0
    cpu_us_per_message: float = 0.0

    @property
    def rate(self) -> float:
        """Deliveries a second, from the start to the last one."""
        progress, start = self.mailing.progress, self.mailing.start_time.ToNanoseconds()
        return progress.delivered / (progress.last_delivery_time.ToNanoseconds() - start) * 1e9


class _Watcher:
    """Counts the states of one stream and, if it is to, tells how old each delivery was."""

    def __init__(self, delivery: Delivery, sampled: bool) -> None:
        self._delivery = delivery
        self._sampled = sampled
        self._known_until = 0.0
        self.begun = False

    def take(self, body: bytes) -> None:
        """Take a state in."""
        self.begun = True
        self._delivery.states += 1
        if self._sampled:
            now, progress = time.time(), WatchMailingResponse.FromString(body).mailing.progress
            self._measure(now, progress.last_delivery_time.ToNanoseconds() / 1e9)

    def _measure(self, now: float, known_until: float) -> None:
        if self._known_until and known_until > self._known_until:
            # What came since the state before, as if it had come evenly.
            step = (known_until - self._known_until) / _POINTS
            self._delivery.lags += [now - self._known_until - step * point for point in range(1, _POINTS + 1)]
        self._known_until = known_until


async def deliver(service: Service, watchers: int) -> Delivery:
    """Deliver a mailing to all clients under the eyes of so many watchers. Raise BenchmarkFailed."""
    delivery = Delivery()
    start_at = time.time() + _LEAD_SECONDS
    start = Timestamp(nanos=int(start_at % 1 * 1e9), seconds=int(start_at))
    mailing = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT, start_time=start)
    connections = [await connect(service.address) for _ in range(min(_CONNECTIONS, watchers))]
    request = WatchMailingRequest(mailing_id=mailing.id).SerializeToString()
    all_watchers = [_Watcher(delivery, number % _SAMPLED == 0) for number in range(watchers)]
    ended = [
        connections[number % _CONNECTIONS].open(WATCH_MAILING, request, watcher.take)
        for number, watcher in enumerate(all_watchers)
    ]
    await asyncio.sleep(start_at - 0.3 - time.time())
    if not all(watcher.begun for watcher in all_watchers):
        raise BenchmarkFailed("the watchers were not there when the mailing began")
    before = service.cpu_seconds()
    sampling = asyncio.create_task(_sample_memory(service.pid, delivery))
    delivery.mailing = await service.completed(mailing.id)
    delivery.cpu_us_per_message = (service.cpu_seconds() - before) / delivery.mailing.progress.delivered * 1e6
    async with asyncio.timeout(30):
        await asyncio.gather(*ended)
    sampling.cancel()
    for connection in connections:
        connection.close()
    return delivery


async def _sample_memory(pid: int, delivery: Delivery) -> None:
    while True:
        delivery.peak_mb = max(delivery.peak_mb, rss_mb(pid))
        await asyncio.sleep(0.2)
