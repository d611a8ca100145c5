"""Traces: the port of a tracer, and the work queue and the plan that make spans.

The engine knows no tracer of its own. Without one nothing here is in the way of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.mailings import Expansion, Mailing, Step
from dispatcher.model.outcomes import Settlement
from dispatcher.ports import MailingPlan, Render, Storage, WorkQueue


class Span(Protocol):
    """A piece of work that is under way."""

    def note(self, **facts: int | str) -> None:
        """Add facts. Neither phones nor texts nor secrets are any."""
        ...

    def fail(self, why: str) -> None:
        """Note that it did not succeed."""
        ...


class Tracer(Protocol):
    """Records spans: how pieces of work nest, and how long they take."""

    def span(self, name: str, **facts: int | str) -> AbstractContextManager[Span]:
        """Enclose a piece of work; an exception fails it."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return the headers that carry the present span to the endpoint; ASCII, without line breaks."""
        ...


TraceHeaders = Callable[[], Mapping[str, str]]
"""Returns the headers of a request that carry its trace to the endpoint."""


class TracedQueue:
    """A work queue each of whose claims and settlements is a span. Implements `dispatcher.ports.WorkQueue`."""

    def __init__(self, queue: WorkQueue, tracer: Tracer) -> None:
        self._queue = queue
        self._tracer = tracer

    async def scan(self) -> list[OpenWork]:
        return await self._queue.scan()

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        return await self._queue.definitions(ids)

    async def change_numbers(self) -> dict[int, int]:
        return await self._queue.change_numbers()

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        return await self._queue.changed_clients(bucket, after, until, client_ids)

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        with self._tracer.span("claim", mailing_id=mailing.id, bucket=bucket) as span:
            batches = await self._queue.claim(mailing, bucket, most, lease, render, held)
            span.note(batches=len(batches))
            return batches

    async def release_orphans(self, known: Sequence[int]) -> None:
        await self._queue.release_orphans(known)

    async def settle(self, settlement: Settlement) -> bool:
        batch = settlement.batch
        with self._tracer.span("settle", mailing_id=batch.mailing_id, bucket=batch.bucket) as span:
            span.note(endpoint=settlement.endpoint, messages=len(settlement))
            settled = await self._queue.settle(settlement)
            if not settled:
                span.fail("taken over")
            return settled


class TracedPlan:
    """A plan each of whose steps of an expansion is a span. Implements `dispatcher.ports.MailingPlan`."""

    def __init__(self, plan: MailingPlan, tracer: Tracer) -> None:
        self._tracer = tracer
        self._plan = plan
        self.poll, self.start_due, self.expandable = plan.poll, plan.start_due, plan.expandable
        self.expanded, self.rechecks_due, self.rechecked = plan.expanded, plan.rechecks_due, plan.rechecked
        self.expedite, self.complete, self.forget_changes = plan.expedite, plan.complete, plan.forget_changes

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        with self._tracer.span("expand", mailing_id=expansion.mailing_id, bucket=bucket) as span:
            step = await self._plan.expand(expansion, bucket, batch_size, limit)
            span.note(messages=step.inserted)
            return step

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        with self._tracer.span("expand", mailing_id=expansion.mailing_id, bucket=bucket) as span:
            step = await self._plan.expand_changes(expansion, bucket, batch_size, limit)
            span.note(messages=step.inserted)
            return step


def traced(storage: Storage, tracer: Tracer) -> Storage:
    """Return a storage whose expansions, claims and settlements are spans."""
    return replace(storage, plan=TracedPlan(storage.plan, tracer), queue=TracedQueue(storage.queue, tracer))
