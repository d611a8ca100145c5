"""What the dispatcher tells of its work to those who trace it, and the sender that does.

A tracer is a port: this package knows none. Without one nothing here is in the way of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from dispatcher.model.records import Answer
from dispatcher.model.states import ErrorClass
from dispatcher.ports import MayStart, Sender


class Span(Protocol):
    """A piece of work that is under way."""

    def note(self, **facts: int | str) -> None:
        """Add facts. Neither phones nor texts nor secrets are any."""
        ...

    def fail(self, why: str) -> None:
        """Note that it did not succeed."""
        ...


class Tracer(Protocol):
    """Takes note of pieces of work: how they lie within each other, and how long they take."""

    def span(self, name: str, **facts: int | str) -> AbstractContextManager[Span]:
        """Enclose a piece of work; an exception fails it."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return what tells others of the present span, as headers of a request; ASCII, without line breaks."""
        ...


TraceHeaders = Callable[[], Mapping[str, str]]
"""Gives a request the headers that tell the endpoint of the trace it belongs to."""


class TracedSender:
    """A sender each of whose requests is a span. Implements `dispatcher.ports.Sender`."""

    def __init__(self, sender: Sender, endpoint: str, tracer: Tracer) -> None:
        self._sender = sender
        self._endpoint = endpoint
        self._tracer = tracer

    async def send(
        self,
        message_id: int,
        phone: str,
        text: str,
        at_most_once: bool = False,
        may_start: MayStart | None = None,
    ) -> Answer | None:
        """POST one message and return what it came to. See `dispatcher.ports.Sender.send`."""
        with self._tracer.span("send", endpoint=self._endpoint, message_id=message_id) as span:
            answer = await self._sender.send(message_id, phone, text, at_most_once, may_start)
            if answer is None:
                span.fail("not started")
                return None
            span.note(status=answer.status)
            if answer.error is not ErrorClass.NONE:
                span.fail(answer.error.name)
            return answer

    async def close(self) -> None:
        """Close every connection; requests under way end with DISCONNECT."""
        await self._sender.close()
