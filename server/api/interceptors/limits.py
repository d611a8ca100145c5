"""What one caller may take of a replica, so that nobody takes the service from the others.

A caller has so many streams and so many calls at once, and begins so many a second; a call that
is no stream lasts so long. Without authentication a caller is a host, whatever the connection.
Health has streams of its own and no rate: whoever is at a limit is still told that the service lives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import grpc

from server.api.interceptors.handlers import Handler, Interceptor, around
from server.domain.errors import CallTooLong, LimitReached, RateExceeded
from server.domain.principals import caller

_HEALTH = "/grpc.health."

_FORGET_ABOVE = 10_000
"""Principals that are remembered before those that have been quiet are forgotten."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The limits of one principal on one replica."""

    streams: int = 20_000
    """Streams at once, imports included."""
    calls: int = 1000
    """Other calls at once."""
    per_second: float = 2000.0
    """Calls and streams begun a second, after a burst of as many; 0: any number."""
    longest: float = 120.0
    """Seconds that a call may last which is no stream, whatever deadline its caller sets."""


class LimitInterceptor(Interceptor):
    """Refuses what is above the limits, inside of what turns refusals into a status."""

    def __init__(self, limits: CallLimits) -> None:
        self._pace = Pace(limits.per_second)
        self._call = _Kind("calls", limits.calls, True, limits.longest)
        self._stream = _Kind("streams", limits.streams, True, None)
        self._watch = _Kind("streams of health", limits.streams, False, None)
        self._open: Counter[tuple[str, str]] = Counter()

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler but the check of health."""
        kind = self._stream if handler.request_streaming or handler.response_streaming else self._call
        if call.method.startswith(_HEALTH):
            if kind is self._call:
                return handler
            kind = self._watch
        return around(handler, lambda context: self._admitted(principal_of(context.peer()), kind))

    @asynccontextmanager
    async def _admitted(self, principal: str, kind: _Kind) -> AsyncIterator[None]:
        if kind.paced:
            self._pace.take(principal)
        key = (principal, kind.what)
        if self._open[key] >= kind.most:
            raise LimitReached(kind.what, kind.most)
        self._open[key] += 1
        try:
            async with asyncio.timeout(kind.longest) as limit:
                yield
        except TimeoutError:
            if kind.longest is not None and limit.expired():
                raise CallTooLong(kind.longest) from None
            raise
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


class _Kind(NamedTuple):
    """What calls of a kind are called, how many may be open, whether their rate counts, how many seconds one has."""

    what: str
    most: int
    paced: bool
    longest: float | None


class Pace:
    """Lets each principal begin `per_second` calls a second, and as many at once after a second of rest.

    This is GCRA, which is a token bucket that needs one number for each principal: the time at
    which the bucket is full again. `now` returns seconds that only grow.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._now = now
        self._full_at: dict[str, float] = {}
        self._forget_above = _FORGET_ABOVE

    def take(self, principal: str) -> None:
        """Take one token. Raise RateExceeded when there is none."""
        if not self._per_second:
            return
        now = self._now()
        full_at = max(self._full_at.get(principal, now), now) + 1 / self._per_second
        wait = full_at - now - max(1.0, 1 / self._per_second)
        if wait > 1e-9:
            raise RateExceeded(self._per_second, wait)
        self._full_at[principal] = full_at
        if len(self._full_at) > self._forget_above:
            self._forget(now)

    def _forget(self, now: float) -> None:
        self._full_at = {principal: at for principal, at in self._full_at.items() if at > now}
        self._forget_above = max(_FORGET_ABOVE, 2 * len(self._full_at))


def principal_of(peer: str) -> str:
    """Return the name of the present caller; of those who need none the host of the peer.

    gRPC writes peers as `ipv4:10.0.0.1:50123` or `unix:`.
    """
    if caller().how != "open":
        return str(caller())
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer
