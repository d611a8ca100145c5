"""Webhooks out: which events a subscriber gets, how they look, and when to try again.

Pure. Events are thin: ids and states, and neither phones nor texts. Bodies follow Standard Webhooks
(standardwebhooks.com); an event keeps its `id` however often it is sent, and in whichever request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from dispatcher.model.states import Status
from server.domain.change_feed import Entry
from server.domain.events import RecordedEvent
from server.domain.messages import message_id
from server.domain.receipts import Receipt

MAX_BODY = 20_000
"""The most bytes of a request's body; a single event is far smaller."""

FIRST_WAIT, LONGEST_WAIT = 5.0, 86_400.0
"""Seconds before the first and the latest try after a failure; they double."""

SLOW_DOWN = 60.0
"""The shortest wait in seconds after 429, 502 and 504."""

_SLOW = frozenset({429, 502, 504})
_GONE = 410

EVENTS = (
    "mailing.started",
    "mailing.completed",
    "mailing.cancelled",
    "message.settled",
    "message.receipt",
    "client.opted_out",
    "endpoint.down",
    "endpoint.up",
    "endpoint.refuses_credentials",
)
"""The types of events."""

_LOGGED = frozenset({"mailing.started", "mailing.completed", "mailing.cancelled", "client.opted_out"})


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """A subscriber: events of these types (empty: of all), and of mailings with all of these labels.

    `secrets` sign together: the first is the newest. `timeout` is in seconds.
    """

    name: str
    url: str
    secrets: tuple[str, ...] = field(repr=False)
    events: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 15.0

    @property
    def shown_url(self) -> str:
        """The URL without the values of its query, which may be secret."""
        parts = urlsplit(self.url)
        query = "&".join(f"{one.partition('=')[0]}=***" for one in parts.query.split("&")) if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")

    @property
    def digest(self) -> str:
        """What identifies this configuration: a subscriber that had enough is asked again when it changes."""
        text = orjson.dumps([self.url, self.secrets, sorted(self.events), sorted(self.labels.items())])
        return blake2b(text, digest_size=16).hexdigest()

    def wants(self, kind: str) -> bool:
        """Return whether the subscriber gets events of a type."""
        return not self.events or kind in self.events


class WebhookEvent(NamedTuple):
    """One event: its id, type and time, what it is about, and the mailing whose labels count (0: none)."""

    id: str
    type: str
    at: datetime
    mailing_id: int
    data: Mapping[str, object]

    def encoded(self) -> bytes:
        """Return the event as JSON."""
        return orjson.dumps({"id": self.id, "type": self.type, "timestamp": self.at, "data": self.data})


def of_entry(entry: Entry) -> Iterator[WebhookEvent]:
    """Yield the events of an entry of the change feed: messages that ended, or receipts."""
    if entry.receipts:
        rows = zip(entry.client_ids, entry.statuses, entry.receipts, entry.receipt_codes, strict=True)
        for client_id, status, receipt, code in rows:
            more = {"receipt": Receipt(receipt).name, "code": code}
            yield _of_message(entry, "message.receipt", client_id, status, more)
        return
    for client_id, status in entry.changes(frozenset()):
        if status != Status.PENDING:
            yield _of_message(entry, "message.settled", client_id, status, {})


def _of_message(entry: Entry, kind: str, client_id: int, status: int, more: Mapping[str, object]) -> WebhookEvent:
    data = {
        "message_id": str(message_id(entry.mailing_id, client_id)),
        "mailing_id": str(entry.mailing_id),
        "client_id": str(client_id),
        "status": Status(status).name,
        **more,
    }
    return WebhookEvent(f"m-{entry.bucket}-{entry.seq}-{client_id}", kind, entry.at, entry.mailing_id, data)


def of_log(bucket: int, no: int, recorded: RecordedEvent) -> WebhookEvent | None:
    """Return the event of an entry of the event log; None for one that nobody outside gets."""
    identity, details = f"l-{bucket}-{no}", recorded.details
    if recorded.event in _LOGGED:
        about = {"mailing_id": recorded.mailing_id, "client_id": recorded.client_id}
        data = {name: str(value) for name, value in about.items() if value}
        return WebhookEvent(identity, recorded.event, recorded.at, recorded.mailing_id, data)
    if recorded.event in ("breaker.opened", "breaker.closed"):
        kind = "endpoint.up" if recorded.event == "breaker.closed" else "endpoint.down"
        if details.get("reason") == "credentials":
            kind = "endpoint.refuses_credentials"
        return WebhookEvent(identity, kind, recorded.at, 0, {"endpoint": details.get("endpoint", "")})
    return None


def chosen(
    config: WebhookConfig, events: Iterable[WebhookEvent], labels: Mapping[int, Mapping[str, str]]
) -> list[WebhookEvent]:
    """Return the events that a subscriber gets; `labels` are those of mailings."""
    wanted = config.labels.items()
    return [
        one
        for one in events
        if config.wants(one.type)
        and (not wanted or (one.mailing_id and wanted <= labels.get(one.mailing_id, {}).items()))
    ]


def bodies(events: Sequence[WebhookEvent], now: datetime) -> Iterator[bytes]:
    """Yield the bodies of requests that tell of all events, in their order."""
    pieces, size = list[bytes](), 0
    for event in events:
        piece = event.encoded()
        if pieces and size + len(piece) > MAX_BODY - 200:
            yield _body(pieces, now)
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece) + 1
    if pieces:
        yield _body(pieces, now)


def _body(pieces: Sequence[bytes], now: datetime) -> bytes:
    head = orjson.dumps({"type": "events", "timestamp": now})[:-1]
    return head + b',"data":[' + b",".join(pieces) + b"]}"


def webhook_id(name: str, body: bytes) -> str:
    """Return the id of a request: the same for the same events, however often it is sent."""
    ids = [event["id"] for event in orjson.loads(body)["data"]]
    return "msg_" + blake2b(orjson.dumps([name, ids]), digest_size=16).hexdigest()


class Attempted(NamedTuple):
    """What a request came to: delivered, or when to try again in seconds; `gone` when never."""

    delivered: bool
    wait: float = 0.0
    gone: bool = False


def judged(status: int, retry_after: float | None, failures: int, share: float) -> Attempted:
    """Return what follows from an answer (0: none) after `failures` earlier ones; `share` is random, 0 to 1."""
    if 200 <= status < 300:
        return Attempted(True)
    if status == _GONE:
        return Attempted(False, gone=True)
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 20)) * (0.5 + share / 2)
    if status in _SLOW:
        wait = max(wait, SLOW_DOWN, retry_after or 0.0)
    return Attempted(False, min(wait, LONGEST_WAIT))


def needs_labels(config: WebhookConfig, events: Iterable[WebhookEvent]) -> Collection[int]:
    """Return the mailings whose labels decide about events."""
    return {one.mailing_id for one in events if one.mailing_id} if config.labels else ()
