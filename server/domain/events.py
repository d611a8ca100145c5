"""The event log: the entries that API calls write, what a reader selects, and the order of reading.

Within a bucket entries are in the order of their numbers, which is that of their commits.
Between buckets they are put into the order of their times as far as that is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from heapq import merge
from itertools import accumulate

from dispatcher.model.states import Status
from dispatcher.model.words import ERROR_WORDS
from dispatcher.outcome_events import Event, Level
from server.domain.pagination import query_digest
from server.domain.resume_tokens import Positions


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One entry of the event log. 0 in an id: about none."""

    at: datetime
    level: Level
    event: str
    text: str
    mailing_id: int
    message_id: int
    client_id: int
    principal: str
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which entries to read; 0: about any."""

    mailing_id: int = 0
    message_id: int = 0
    client_id: int = 0
    level: Level = Level.DEBUG

    @property
    def about_mailing(self) -> int:
        """The mailing that all entries are about, 0 when they may be about others."""
        return self.mailing_id or self.message_id >> 32

    def digest(self) -> bytes:
        """Return a digest that identifies this query in tokens."""
        return query_digest("WatchLog", self.mailing_id, self.message_id, self.client_id, int(self.level))


@dataclass(frozen=True, slots=True)
class BucketPage:
    """The matching entries of one bucket between `after` and `reached`, with their numbers.

    `head` is the last number written, `floor` the last one deleted. `reached_at` is the time
    of the last entry scanned, matching or not, None when there was none.
    """

    after: int
    entries: Sequence[tuple[int, RecordedEvent]]
    reached: int
    reached_at: datetime | None
    head: int
    floor: int

    @property
    def more(self) -> bool:
        """Whether there may be entries behind this page."""
        return self.reached < self.head


def in_order(pages: Sequence[BucketPage]) -> tuple[list[RecordedEvent], Positions]:
    """Return the entries that can be delivered, by time, and the positions behind them.

    No entry is delivered that is later than an entry which another bucket may still have. The
    bucket that holds the others back delivers its whole page, so reading always advances.
    """
    times = [_times(page) for page in pages]
    horizons = [max(own[-1:] + _known(page.reached_at)) for page, own in zip(pages, times, strict=True) if page.more]
    horizon = min(horizons, default=None)
    positions, streams = [], []
    for page, own in zip(pages, times, strict=True):
        ready = [(at, one) for at, one in zip(own, page.entries, strict=True) if horizon is None or at <= horizon]
        whole = len(ready) == len(page.entries)
        positions.append(page.reached if whole else ready[-1][1][0] if ready else page.after)
        streams.append(ready)
    ordered = merge(*streams, key=lambda pair: pair[0])
    return [recorded for _, (_, recorded) in ordered], tuple(positions)


def _times(page: BucketPage) -> list[datetime]:
    """Return the entries' times as a rising sequence: they were taken before the numbers were."""
    return list(accumulate((recorded.at for _, recorded in page.entries), max))


def _known(moment: datetime | None) -> list[datetime]:
    return [] if moment is None else [moment]


def mailing_created(mailing_id: int, title: str, running: bool) -> list[Event]:
    """Return the events of a new mailing: created and, if its start has come, started."""
    called = f"{title[:80]!r} " if title else ""
    created = Event(Level.INFO, "mailing.created", f"The mailing {called}was created.", mailing_id)
    return [created, mailing_event(mailing_id, "started")] if running else [created]


def mailing_event(mailing_id: int, what: str, **details: str) -> Event:
    """Return the event of a mailing that was paused, resumed, cancelled or deleted; `what` says which."""
    return Event(Level.INFO, f"mailing.{what}", f"The mailing was {what}.", mailing_id, details=details)


def messages_removed(mailing_id: int, messages: int, archived: bool) -> Event:
    """Return the event of a mailing whose messages were kept long enough."""
    text = f"Its {messages:,} messages were kept long enough and are removed; counters and report stay."
    return Event(
        Level.INFO,
        "mailing.messages_removed",
        text,
        mailing_id,
        details={"messages": str(messages), "archived": str(archived).lower()},
    )


def mailing_updated(mailing_id: int, changed: Collection[str]) -> list[Event]:
    """Return the event of a mailing of which these fields changed; none when none did."""
    names = ", ".join(sorted(changed))
    text = f"The mailing was updated: {names}."
    return [Event(Level.INFO, "mailing.updated", text, mailing_id, details={"fields": names})] if names else []


def mailing_retried(mailing_id: int, statuses: Collection[int]) -> Event:
    """Return the event of a mailing whose messages with these statuses are retried."""
    names = ", ".join(Status(status).name.lower() for status in sorted(statuses))
    text = f"The mailing is retried: its {names} messages return to PENDING."
    return Event(Level.INFO, "mailing.retried", text, mailing_id, details={"statuses": names})


def mailing_tested(mailing_id: int, phone: str, forced: bool) -> Event:
    """Return the event of a test message to a phone, which is masked; the mailing is 0 where it is not stored."""
    text = f"A test message was sent to {phone}{', who has opted out or not' if forced else ''}."
    return Event(
        Level.INFO, "mailing.tested", text, mailing_id, details={"phone": phone, "forced": str(forced).lower()}
    )


def records_exported(what: str, mailing_id: int = 0) -> Event:
    """Return the event of an export that begins, of clients or of messages."""
    return Event(Level.INFO, f"{what}.exported", f"An export of {what} was begun.", mailing_id)


def client_read(client_id: int, what: str) -> Event:
    """Return the event of a look at one client: at what is stored of them, or at their `story`."""
    text = "The client's story was read." if what == "story" else "The client was looked up by phone."
    return Event(Level.INFO, "client.read", text, 0, client_id, {"what": what})


def endpoint_probed(endpoint: str, error_class: str) -> Event:
    """Return the event of a request that only tries an endpoint; `error_class` is '' where it was accepted."""
    details = {"endpoint": endpoint, "error_class": error_class}
    text = f"The endpoint {endpoint} was probed: {ERROR_WORDS.get(error_class, 'accepted')}."
    return Event(Level.INFO, "endpoint.probed", text, details={name: one for name, one in details.items() if one})


def client_deleted(client_id: int, cancelled: int) -> Event:
    """Return the event of a deleted client and of their cancelled messages."""
    text = f"The client was deleted; {cancelled} unsent messages were cancelled."
    return Event(Level.INFO, "client.deleted", text, 0, client_id, {"cancelled_messages": str(cancelled)})


def segment_event(what: str, segment_id: int, name: str) -> Event:
    """Return the event of a segment that was created, updated or deleted; `what` is which of these."""
    details = {"segment": str(segment_id), "name": name}
    return Event(Level.INFO, f"segment.{what}", f"The segment {name!r} was {what}.", details=details)


class OptOutSource(Enum):
    """Where the service learned that a client opted out, or in again."""

    API = "api"
    IMPORT = "import"
    INBOUND = "inbound"
    """They wrote it to the gateway."""
    ENDPOINT = "endpoint"
    """Their gateway said so, in an answer or a receipt."""
    PHONE_MEMORY = "phone_memory"
    """The phone was added again; its former client had opted out."""


def client_opted(client_id: int, out: bool, source: OptOutSource, endpoint: str = "") -> Event:
    """Return the event of a client who opted out, or in again; `endpoint` is whose gateway said it."""
    event, text = ("client.opted_out", "The client opted out.") if out else ("client.opted_in", "The client opted in.")
    details = {"source": source.value} | ({"endpoint": endpoint} if endpoint else {})
    return Event(Level.INFO, event, text, 0, client_id, details)


def clients_imported(created: int, updated: int, unchanged: int) -> Event:
    """Return the event of an import."""
    details = {"created": str(created), "updated": str(updated), "unchanged": str(unchanged)}
    text = f"Clients were imported: {created} new, {updated} changed, {unchanged} unchanged."
    return Event(Level.INFO, "clients.imported", text, details=details)


def dispatch_settings_changed(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> Event:
    """Return the event of changed runtime settings, by name; None is the environment's value."""
    changed = {name: after[name] for name in after if after[name] != before[name]}
    details = {name: "as started" if value is None else f"{value:g}" for name, value in changed.items()}
    listed = ", ".join(f"{name} {value}" for name, value in details.items())
    return Event(
        Level.INFO, "dispatch.settings", f"Settings of all dispatchers were changed: {listed}.", details=details
    )


def dispatch_paused(paused: bool) -> Event:
    """Return the event of the emergency stop."""
    if paused:
        return Event(Level.WARNING, "dispatch.paused", "All sending was stopped.")
    return Event(Level.INFO, "dispatch.resumed", "Sending was resumed.")
