"""Keeps the lanes' breakers in step with what all replicas know of the endpoints.

What a lane finds out is told to the database; what others found out is learned from it. While
an endpoint is down, nothing of its messages is held here and their attempts cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from dispatcher.breaker import PROBE_FIRST, PROBE_MOST, WINDOW
from dispatcher.endpoint_workers import Lane
from dispatcher.leases import Book, Lease
from dispatcher.model.records import DEFAULT_ENDPOINT
from dispatcher.ports import Clock, Ledger, LedgerUnavailable

log = logging.getLogger(__name__)

_MARGIN = 1.0
"""Seconds that a probe may take on top of the longest request."""

_PAUSE = 0.5
"""Seconds between two tries to tell the database."""


class Guard:
    """Serves all lanes of a replica. `finished` is called with leases that need no more sending."""

    def __init__(self, ledger: Ledger, clock: Clock, book: Book, finished: Callable[[Lease], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._book = book
        self._finished = finished
        self._news: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    async def run(self) -> None:
        """Tells the database what the lanes found out, in order, until cancelled."""
        while True:
            tell = await self._news.get()
            while True:
                try:
                    await tell()
                    break
                except LedgerUnavailable as error:
                    log.warning("the state of an endpoint waits for the database: %s", error)
                    await self._clock.sleep(_PAUSE)

    def tripped(self, lane: Lane) -> None:
        """Takes note that a lane's breaker opened: for this replica at once, for the others soon."""
        told = "the endpoint %s is down, nothing is sent there: %s"
        log.warning(told, lane.name, lane.last_error, extra={"endpoint": lane.name})
        since = self._clock.monotonic() - WINDOW
        for lease in self._leases_of(lane):
            lease.forgive(since)
        self._let_go(lane)
        self._news.put_nowait(partial(self._ledger.open_breaker, lane.name, PROBE_FIRST, lane.last_error))

    def probed(self, lane: Lane, recovered: bool) -> None:
        """Takes note of how a probe ended."""
        if recovered:
            log.info("the endpoint %s answers again", lane.name, extra={"endpoint": lane.name})
            self._news.put_nowait(partial(self._ledger.close_breaker, lane.name))
        else:
            self._let_go(lane)
            self._news.put_nowait(partial(self._probe_failed, lane))

    async def _probe_failed(self, lane: Lane) -> None:
        probe_in = await self._ledger.fail_probe(lane.name, PROBE_FIRST, PROBE_MOST, lane.last_error)
        if not lane.breaker.closed:
            lane.breaker.open(self._clock.monotonic(), probe_in)

    async def learn(self, lanes: Collection[Lane]) -> None:
        """Takes over what others found out. Raises LedgerUnavailable."""
        shared = await self._ledger.breakers([lane.name for lane in lanes])
        now = self._clock.monotonic()
        for lane in lanes:
            closed = lane.breaker.closed
            lane.breaker.learn(now, shared.get(lane.name))
            if closed and not lane.breaker.closed:
                self._let_go(lane)
            elif not closed and lane.breaker.closed:
                lane.limit.restart()

    async def probe(self, lane: Lane) -> bool:
        """Asks whether this replica may try the endpoint, once it is time. Raises LedgerUnavailable."""
        now = self._clock.monotonic()
        if lane.breaker.closed or lane.breaker.probing(now) or now < lane.breaker.probe_at:
            return False
        longest = lane.longest + _MARGIN
        if await self._ledger.begin_probe(lane.name, longest):
            lane.breaker.probe(now, now + longest)
            return True
        lane.breaker.open(now, PROBE_FIRST)
        return False

    def _let_go(self, lane: Lane) -> None:
        """Gives back what nobody has begun to send."""
        for lease in self._leases_of(lane):
            if lease.release(lease.mailing):
                self._finished(lease)

    def _leases_of(self, lane: Lane) -> list[Lease]:
        return [lease for lease in self._book.leases if (lease.mailing.endpoint or DEFAULT_ENDPOINT) == lane.name]
