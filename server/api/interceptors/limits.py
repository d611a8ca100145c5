"""Per-caller limits, which keep one client from overloading a replica.

They bound the streams and the calls that a caller has open, the rate at which it begins them, and
the duration of calls and of streams. Without authentication a caller is a host, whatever the
connection. Health checks have streams of their own and no rate, so that a caller over its limits
still sees that the service is alive. Methods that are open to everybody have few streams per host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import random
from typing import NamedTuple

from server.api.handlers import Handler
from server.api.interceptors.arrivals import ArrivalLimits
from server.domain.call_rate import CallRate
from server.domain.errors import CallTooLong, ConnectionAged, LimitReached
from server.domain.principals import caller

_HEALTH = "/grpc.health."
_REFLECTION = "/grpc.reflection."


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
    """Maximum duration in seconds of a call that is no stream, whatever deadline its caller sets."""
    unread: float = 60.0
    """Seconds after which a stream ends whose caller does not read it, or does not write to it."""
    recheck: float = 10.0
    """Seconds between two looks at whether the caller of a stream may still have it."""
    stream_age: float = 4200.0
    """Maximum duration in seconds of a stream, less a random part: those that began together end apart."""
    message_bytes: int = 4 << 20
    """Maximum size of a message of a request."""
    open_streams: int = 16
    """Streams at once of a host to methods that need no credentials."""
    refused_per_second: float = 100.0
    """Calls without valid credentials a second of a host, after a burst of as many."""
    arrivals: ArrivalLimits = field(default_factory=ArrivalLimits)
    """Requests that have not arrived in full."""


class CallLimiter:
    """Counts what is open and begun."""

    def __init__(self, limits: CallLimits) -> None:
        self._rate = CallRate(limits.per_second)
        self._refusals = CallRate(limits.refused_per_second)
        self._call = CallKind("calls", limits.calls, True, limits.longest, CallTooLong)
        self._stream = CallKind("streams", limits.streams, True, limits.stream_age, ConnectionAged)
        self._check = self._call._replace(what="health checks", has_rate=False)
        self._watch = self._stream._replace(what="health streams", most=limits.open_streams, has_rate=False)
        self._reflection = self._stream._replace(what="reflection streams", most=limits.open_streams)
        self._open: dict[tuple[str, str], int] = {}  # by principal and kind, none without any

    def kind_of(self, handler: Handler, method: str) -> CallKind:
        """Return which limits the calls of a method have."""
        streams = handler.request_streaming or handler.response_streaming
        if method.startswith(_HEALTH):
            return self._watch if streams else self._check
        if method.startswith(_REFLECTION):
            return self._reflection
        return self._stream if streams else self._call

    def begin(self, principal: str, kind: CallKind) -> None:
        """Count a call, of which `end` is to be called. Raise RateExceeded and LimitReached."""
        if kind.has_rate:
            self._rate.take(principal)
        key = (principal, kind.what)
        if (opened := self._open.get(key, 0)) >= kind.most:
            raise LimitReached(kind.what, kind.most)
        self._open[key] = opened + 1

    def end(self, principal: str, kind: CallKind) -> None:
        """Count the end of a call."""
        key = (principal, kind.what)
        if left := self._open[key] - 1:
            self._open[key] = left
        else:
            del self._open[key]

    def refused(self, host: str) -> None:
        """Count a call without valid credentials. Raise RateExceeded when a host makes too many."""
        self._refusals.take(host)


class CallKind(NamedTuple):
    """Limits of a kind of call: its name, how many may be open, whether its rate counts, how long one may last."""

    what: str
    most: int
    has_rate: bool
    longest: float
    overdue: type[CallTooLong | ConnectionAged]

    def duration(self) -> float:
        """Return how long a call of this kind that begins now may last, in seconds."""
        spread = 0.2 if self.overdue is ConnectionAged else 0.0
        return self.longest * (1 - spread * random())  # noqa: S311  spreads load, keeps no secret


def principal_of(peer: str) -> str:
    """Return the name of the current caller, or the peer's host where there is no authentication."""
    return host_of(peer) if caller().credentials == "open" else str(caller())


def host_of(peer: str) -> str:
    """Return a peer without its port. gRPC writes peers as `ipv4:10.0.0.1:50123` or `unix:`."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer
