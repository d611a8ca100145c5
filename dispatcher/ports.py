"""What the engine asks of the world: time, senders, and storage.

Storage is split by who needs it: one port for the planner, one for claims and settlements, one
for breakers, one for rates, one for heartbeats. Each has a real implementation in
`server.storage` and a modelled one in the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.endpoints import Answer, Endpoint, EndpointState, SlotRequest, Slots
from dispatcher.model.mailings import Expansion, Mailing, PollResult, Step
from dispatcher.model.outcomes import Settlement
from dispatcher.model.quotas import QuotaGrant, QuotaRequest, QuotaReturn
from dispatcher.model.settings import SettingOverrides
from dispatcher.model.states import Suspension
from dispatcher.model.texts import RenderedText


class StorageUnavailable(Exception):
    """The database cannot be reached or does not answer in time. Trying again later may help."""


class Clock(Protocol):
    """Time, handed in so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that only grow, of an arbitrary origin."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when the event is set or after so many seconds."""
        ...


class Request(Protocol):
    """One message as a sender sees it. `phone` holds digits only.

    With `at_most_once` it is never repeated on a second connection.
    """

    message_id: int
    phone: str
    text: str
    at_most_once: bool

    @property
    def values(self) -> Sequence[str]:
        """What the endpoint's description needs beside, in the order of its `needs`."""
        ...

    def may_start(self) -> bool:
        """Return whether it may be written now. Answers at once, from memory, and never raises."""
        ...

    def answered(self, answer: Answer | None) -> None:
        """Take in what it came to, None if it was not started. Called once; does no more than take note."""
        ...


class Sender(Protocol):
    """Makes requests to one endpoint. Both implementations pass tests/conformance."""

    def send(self, request: Request) -> None:
        """POST one message, and tell the request what it came to, perhaps before this returns.

        That comes within the endpoint's total timeout, in memory bounded by its response limit.

        `may_start` is asked when there is a connection, right before the request is written
        to it, and again before a repetition. If it says no, nothing of the request leaves:
        it is handed None or, where it was written once already, a DISCONNECT with `sent`.
        """
        ...

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint, which is the same otherwise, from the next request on."""
        ...

    async def close(self) -> None:
        """Close every connection; requests under way end with DISCONNECT, or are not answered any more."""
        ...


class MailingPlan(Protocol):
    """What the planner asks of storage: which mailings start, take in clients and end.

    Every method may raise StorageUnavailable. Nothing is judged by any clock but the database's.
    """

    async def poll(self) -> PollResult:
        """Return what there is to do and when the next thing falls due."""
        ...

    async def start_due(self) -> list[int]:
        """Start the mailings whose time has come and return their ids."""
        ...

    async def expandable(self, most: int) -> list[Expansion]:
        """Return the mailings that have clients to take in, the most urgent first.

        Those that have `most` open batches already come last.
        """
        ...

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        """Read the next `limit` clients of a bucket and give those that match a message."""
        ...

    async def expanded(self, recheck_min: float) -> None:
        """Begin the rechecks of open mailings that have been expanded completely."""
        ...

    async def rechecks_due(self) -> list[Expansion]:
        """Return the open mailings whose recheck is due, with the buckets that changed."""
        ...

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        """Read the next `limit` changes of clients and take in those that now match."""
        ...

    async def rechecked(self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float) -> None:
        """Note that mailings were rechecked, and in which of them clients were found."""
        ...

    async def expedite(self) -> None:
        """Make what waits in mailings that are over due at once."""
        ...

    async def complete(self, ids: Sequence[int] | None = None) -> list[int]:
        """End mailings that have nothing left to do, among `ids` or all; return theirs."""
        ...

    async def forget_changes(self) -> None:
        """Remove the changes of clients that every live mailing has read."""
        ...


class Render(Protocol):
    """Makes the texts of clients, and says whether each may be sent."""

    def __call__(
        self, phone: str, operator_code: str, tag: str, timezone: str, attributes: Mapping[str, str]
    ) -> RenderedText:
        """Return the text for one client."""
        ...

    def all_texts(self, fields: Sequence[Sequence[str]]) -> Sequence[str] | None:
        """Return the texts of clients at once, None where each must be looked at.

        `fields` has a column each of phones, operator codes, tags and time zones.
        """
        ...


class WorkQueue(Protocol):
    """The open batches: what the claimer leases and the settler records.

    Every method may raise StorageUnavailable. Nothing is judged by any clock but the database's.
    """

    async def scan(self) -> list[OpenWork]:
        """Return the open work that no replica holds."""
        ...

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        """Return mailings as they are now; those that are gone are left out."""
        ...

    async def change_numbers(self) -> dict[int, int]:
        """Return the number of the last change of clients, by bucket."""
        ...

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        """Return which of a bucket's clients were changed by its changes behind `after` up to `until`.

        Where these are no longer kept, all of the clients are returned.
        """
        ...

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        """Lease up to `most` batches and return them with the messages still to be sent.

        None are returned when the mailing is no longer as given. `render` makes the text from
        a client's values; None means that the mailing's text is everybody's. `held` are the
        numbers of batches that are left alone, even when their leases are over.
        """
        ...

    async def release_orphans(self, known: Sequence[int]) -> None:
        """Free what this replica holds by the database but does not know of; `known` are batch numbers."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Record outcomes under their batch's fence.

        Return False, having changed nothing, when another replica has claimed the batch since.
        """
        ...


class EndpointHealth(Protocol):
    """The breakers that all replicas share. Every method may raise StorageUnavailable."""

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        """Return how those endpoints are doing to which not everything is let through."""
        ...

    async def open_breaker(self, endpoint: str, probe_in: float, error: str, suspension: Suspension) -> bool:
        """Stop the sending to an endpoint for all replicas; the first probe may come in `probe_in` seconds.

        `suspension` says what the endpoint's answers mean, if it is that. Return False, and stop nobody,
        where another replica has delivered something there just now.
        """
        ...

    async def pause(self, endpoint: str, seconds: float) -> None:
        """Let no replica send to an endpoint for so many seconds, or for longer if that is known."""
        ...

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        """Return whether this replica may send one message to an endpoint that is down.

        No other replica may for `longest` seconds.
        """
        ...

    async def close_breaker(self, endpoint: str) -> None:
        """Let everything through again, after a probe of this replica that was answered."""
        ...

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        """End a probe of this replica that failed; return in how many seconds the next one may come."""
        ...


class RateSlotStore(Protocol):
    """The rates that all replicas share."""

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        """Give this replica moments at which requests may start, none of which another replica gets.

        Return the database's time in seconds since the epoch, and the moments by key. May raise
        StorageUnavailable.
        """
        ...


class DayQuotaStore(Protocol):
    """The daily quotas that all replicas share. Every method may raise StorageUnavailable."""

    async def permit(self, request: QuotaRequest) -> QuotaGrant:
        """Give this replica permits of the present day, none of which another replica gets."""
        ...

    async def give_back(self, returns: Sequence[QuotaReturn]) -> None:
        """Let others have permits that this replica does not need."""
        ...


class Heartbeats(Protocol):
    """Where replicas report that they are alive. Every method may raise StorageUnavailable."""

    async def beat(self, age: float, alive_for: float, status: Mapping[str, Any]) -> tuple[float, SettingOverrides]:
        """Record how this replica does; return the database's time and what is set for all.

        The time is in seconds since the epoch. The replica is `age` seconds old and counts as alive
        for so many seconds from now.
        """
        ...

    async def leave(self) -> None:
        """Note that this replica ends."""
        ...


@dataclass(frozen=True, slots=True)
class Storage:
    """The tables behind one dispatcher, one port for each part that needs them.

    Without `heartbeats` the replica is not listed, and it keeps the settings it was started with.
    """

    plan: MailingPlan
    queue: WorkQueue
    health: EndpointHealth
    rates: RateSlotStore
    quotas: DayQuotaStore
    heartbeats: Heartbeats | None = None


MayStart = Callable[[], bool]
"""Says whether a request may start now. Answers at once, from memory, and never raises."""

__all__ = [
    "Clock",
    "DayQuotaStore",
    "EndpointHealth",
    "Heartbeats",
    "MailingPlan",
    "MayStart",
    "RateSlotStore",
    "Render",
    "Request",
    "Sender",
    "Storage",
    "StorageUnavailable",
    "WorkQueue",
]
