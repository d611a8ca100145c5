"""Tells subscribers of events: one replica at a time serves each, from where it stands in both feeds.

A request that was taken moves the position; one that was not is repeated, the same body with the same id, after a wait
that grows from 5 s to a day. So nothing is lost over restarts and replicas, and what happens to a message is sent
in its order. What a subscriber got in a round that broke off is sent again, with the same ids of events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from dispatcher.model.endpoints import Answer
from dispatcher.outcome_events import Level
from dispatcher.tasks import in_background
from dispatcher.verdict import parse_retry_after
from server.domain.errors import DatabaseUnavailable
from server.domain.events import EventQuery
from server.domain.resume_tokens import Positions
from server.domain.webhooks import (
    Attempted,
    WebhookConfig,
    WebhookEvent,
    bodies,
    chosen,
    judged,
    needs_labels,
    of_entry,
    of_log,
    webhook_id,
)
from server.observability.metrics.samples import Samples, Value
from server.storage.change_feed import ChangeFeedStore
from server.storage.events import EventStore
from server.storage.webhooks import Held, WebhookStore
from server.webhooks.requests import WebhookSender

log = logging.getLogger(__name__)

IDLE = 0.5
"""Seconds between two looks for events."""

AWAY = 3.0
"""Seconds between two looks at a subscriber that waits, or that another replica serves."""

_ENTRIES = 16
"""Entries of the change feed that are read from each bucket at once."""


@dataclass(frozen=True, slots=True)
class Feeds:
    """What subscribers get."""

    changes: ChangeFeedStore
    events: EventStore


@dataclass(slots=True)
class _Round:
    """Requests to make, which lead from one place to another."""

    before: tuple[Positions, Positions]
    after: tuple[Positions, Positions]
    bodies: list[bytes]


class Subscriber:
    """Serves one subscriber for this replica, while no other replica does. `results` counts its requests."""

    def __init__(self, config: WebhookConfig, store: WebhookStore, feeds: Feeds, sender: WebhookSender) -> None:
        self.results: Counter[str] = Counter()
        self._config = config
        self._store = store
        self._feeds = feeds
        self._sender = sender
        self._round: _Round | None = None
        self._registered: WebhookConfig | None = None
        self._random = Random()  # noqa: S311 - spreads retries

    def renew(self, config: WebhookConfig) -> None:
        """Use the secrets of this configuration from the next request on."""
        self._config = config
        self._sender.renew(config)

    async def run(self) -> None:
        """Serve until cancelled; then another replica may serve at once."""
        try:
            await self._run()
        finally:
            with suppress(DatabaseUnavailable):
                await self._store.release(self._config.name)

    async def _run(self) -> None:
        while True:
            try:
                if self._registered != (config := self._config):
                    await self._store.register(config)
                    self._registered = config
                wait = await self._serve()
            except DatabaseUnavailable:
                wait = AWAY
            except Exception:
                log.exception("the webhook %s could not be served", self._config.name)
                wait = AWAY
            await asyncio.sleep(wait)

    async def _serve(self) -> float:
        """Tell the subscriber what there is to tell; return how long to rest then."""
        held = await self._store.hold(self._config.name)
        if held is None:
            return AWAY
        if self._round is None or self._round.before != (held.feed, held.log):
            self._round = await self._gather(held)
        if self._round is None:
            return IDLE
        delivered = bool(self._round.bodies)
        while self._round.bodies:
            body = self._round.bodies[0]
            answer = await self._sender.send(webhook_id(self._config.name, body), body)
            end = _end_of(answer, held.failures, self._random.random())
            self.results["delivered" if end.delivered else "failed"] += 1
            if not end.delivered:
                await self._store.fail(self._config.name, _words(answer, end), end.wait, end.gone)
                return min(end.wait, AWAY)
            self._round.bodies.pop(0)
            if await self._store.hold(self._config.name) is None:
                return AWAY
        done, self._round = self._round, None
        await self._store.advance(self._config.name, *done.after, delivered)
        return 0.0

    async def _gather(self, held: Held) -> _Round | None:
        """Return the requests for what lies behind the positions; None when nothing does."""
        poll = await self._feeds.changes.poll(held.feed, _ENTRIES)
        pages = await self._feeds.events.read(EventQuery(level=Level.INFO), held.log)
        log_after = tuple(page.reached for page in pages)
        events: list[WebhookEvent] = [one for entry in poll.entries for one in of_entry(entry)]
        for bucket, page in enumerate(pages):
            events += [one for no, entry in page.entries if (one := of_log(bucket, no, entry)) is not None]
        if (poll.heads, log_after) == (held.feed, held.log):
            return None
        labels = await self._store.labels(needs_labels(self._config, events))
        wanted = chosen(self._config, events, labels)
        return _Round((held.feed, held.log), (poll.heads, log_after), list(bodies(wanted, datetime.now(UTC))))


def _end_of(answer: Answer, failures: int, share: float) -> Attempted:
    asked = None if answer.retry_after is None else parse_retry_after(answer.retry_after, time.time())
    return judged(answer.status, asked, failures, share)


def _words(answer: Answer, end: Attempted) -> str:
    """Return in a few words why a request was not taken."""
    if end.gone:
        return "410: it wants no more events"
    return str(answer.status) if answer.status else answer.error.name.lower().replace("_", " ")


class Webhooks:
    """All subscribers of the configuration, as operators see them."""

    def __init__(self, configs: Sequence[WebhookConfig], store: WebhookStore) -> None:
        self.configs = {config.name: config for config in configs}
        self.store = store
        self._subscribers: dict[str, Subscriber] = {}

    def renew(self, config: WebhookConfig) -> None:
        """Use the secrets of this configuration from the next request on."""
        self.configs[config.name] = config
        if (subscriber := self._subscribers.get(config.name)) is not None:
            subscriber.renew(config)

    def samples(self) -> Samples:
        """Return the requests to all subscribers."""
        counts: dict[tuple[str, ...], Value] = {
            (name, result): subscriber.results[result]
            for name, subscriber in self._subscribers.items()
            for result in ("delivered", "failed")
        }
        return {"mailing_webhook_requests_total": counts}

    @asynccontextmanager
    async def serving(self, feeds: Feeds) -> AsyncIterator[None]:
        """Tell all subscribers of events inside the block."""
        async with AsyncExitStack() as stack:
            for config in self.configs.values():
                sender = WebhookSender(config)
                stack.push_async_callback(sender.close)
                subscriber = self._subscribers[config.name] = Subscriber(config, self.store, feeds, sender)
                await stack.enter_async_context(in_background(subscriber.run(), f"webhook {config.name}"))
            yield

    async def test(self, name: str) -> tuple[str, Answer]:
        """Send an event `webhook.test`, whose position is none; return its webhook-id and what it came to."""
        config = self.configs[name]
        now = datetime.now(UTC)
        event = WebhookEvent(f"t-{time.time_ns()}", "webhook.test", now, 0, {"webhook": name})
        [body] = bodies([event], now)
        identity, sender = webhook_id(name, body), WebhookSender(config)
        try:
            return identity, await sender.send(identity, body)
        finally:
            await sender.close()
