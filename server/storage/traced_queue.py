"""The ledger on Postgres with a span for each of what a message goes through in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dispatcher.model.records import ClaimedBatch, Expansion, Mailing, Step
from dispatcher.ports import Render, Settled
from dispatcher.tracing import Tracer
from server.storage.instrumented_queue import InstrumentedQueue


class TracedQueue(InstrumentedQueue):
    """Implements `dispatcher.ports.Ledger`. Takes what InstrumentedQueue takes, behind a tracer."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer

    async def _take_in(self, statement: str, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        with self._tracer.span("expand", mailing_id=expansion.mailing_id, bucket=bucket) as span:
            step = await super()._take_in(statement, expansion, bucket, batch_size, limit)
            span.note(messages=step.inserted)
            return step

    async def claim(
        self, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        with self._tracer.span("claim", mailing_id=mailing.id, bucket=bucket) as span:
            batches = await super().claim(mailing, bucket, most, lease, render)
            span.note(batches=len(batches))
            return batches

    async def settle(
        self, batch: ClaimedBatch, endpoint: str, outcomes: Sequence[Settled], done: bool, kept: Sequence[int] = ()
    ) -> bool:
        with self._tracer.span("settle", mailing_id=batch.mailing_id, bucket=batch.bucket, endpoint=endpoint) as span:
            span.note(messages=len(outcomes))
            settled = await super().settle(batch, endpoint, outcomes, done, kept)
            if not settled:
                span.fail("taken over")
            return settled
