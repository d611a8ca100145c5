"""The sender that makes a span of each request: only where traces are wanted."""

from __future__ import annotations

from dispatcher.delivery.awaiting import TaskSender, ask
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Request, Sender
from dispatcher.tracing import Tracer


class TracedSender(TaskSender):
    """A sender each of whose requests is a span, from its beginning to its answer. Implements `ports.Sender`."""

    def __init__(self, sender: Sender, endpoint: str, tracer: Tracer) -> None:
        super().__init__()
        self._sender = sender
        self._endpoint = endpoint
        self._tracer = tracer

    def renew(self, endpoint: Endpoint) -> None:
        """Let the sender behind use other secrets."""
        self._sender.renew(endpoint)

    async def post(self, request: Request) -> Answer | None:
        """POST the message of a request in a span of its own."""
        one = request
        with self._tracer.span("send", endpoint=self._endpoint, message_id=one.message_id) as span:
            answer = await ask(
                self._sender, one.message_id, one.phone, one.text, one.at_most_once, one.may_start, one.values
            )
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
        await super().close()
