"""Many messages in one request, for endpoints that take them so.

Messages are collected until a request is full, or for a moment. Windows, ends and pauses are asked for
all of them right before the request is written: if one may not start, nothing leaves, and all are
handed back. Each message is handed an answer of its own: its result, with the status of the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic

import orjson

from dispatcher.model.answers import MISSING
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.request_batches import BatchText
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Request, Sender

log = logging.getLogger(__name__)

LINGER = 0.02
"""Seconds for which a message waits for others to leave with."""

PATIENT_LINGER = 0.5
"""The same while the endpoint asks for patience: what it counts are requests."""

PATIENCE = 60.0
"""Seconds for which that holds after the last such answer."""

_ASKS_PATIENCE = frozenset({429, 503})


class BatchRequest:
    """Messages that leave in one request, which is no message itself. Implements `dispatcher.ports.Request`."""

    __slots__ = ("_sender", "at_most_once", "message_id", "messages", "phone", "text", "values")

    def __init__(self, sender: BatchingSender, messages: Sequence[Request]) -> None:
        self._sender = sender
        self.messages = messages
        self.message_id = messages[0].message_id
        self.phone = self.text = ""
        self.values: Sequence[str] = ()
        self.at_most_once = any(message.at_most_once for message in messages)

    def may_start(self) -> bool:
        """Return whether all of them may start now."""
        return all(message.may_start() for message in self.messages)

    def answered(self, answer: Answer | None) -> None:
        """Hand each message its own answer."""
        self._sender.answered(self.messages, answer)


def messages_of(request: Request) -> Sequence[Request]:
    """Return the messages of a request: itself, or those that leave in it."""
    return request.messages if isinstance(request, BatchRequest) else (request,)


class BatchingSender:
    """Hands messages to another sender, many at once. Implements `dispatcher.ports.Sender`.

    To be used from one event loop, for an endpoint whose description has a batch.
    """

    def __init__(self, sender: Sender, endpoint: Endpoint) -> None:
        assert endpoint.request is not None
        assert endpoint.request.batch is not None
        self._sender = sender
        self._batch = endpoint.request.batch.text
        self._waiting: list[Request] = []
        self._timer: asyncio.TimerHandle | None = None
        self._patient_until = float("-inf")

    def send(self, request: Request) -> None:
        """Let a message leave with the next request. See `dispatcher.ports.Sender.send`."""
        self._waiting.append(request)
        if len(self._waiting) >= self._batch.max:
            self._flush()
        elif self._timer is None:
            wait = PATIENT_LINGER if monotonic() < self._patient_until else LINGER
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush)

    def renew(self, endpoint: Endpoint) -> None:
        """Let the sender behind use other secrets."""
        self._sender.renew(endpoint)

    async def close(self) -> None:
        """Close every connection; messages that wait, as requests under way, end with DISCONNECT."""
        waiting = self._take()
        for message in waiting:
            message.answered(Answer(0, b"", None, ErrorClass.DISCONNECT, False, 0.0))
        await self._sender.close()

    def answered(self, messages: Sequence[Request], answer: Answer | None) -> None:
        """Hand messages that left together their answers."""
        if answer is None:
            for message in messages:
                message.answered(None)
            return
        if answer.status in _ASKS_PATIENCE:
            self._patient_until = monotonic() + PATIENCE
        bodies = result_bodies(answer, self._batch, [message.message_id for message in messages])
        for message, body in zip(messages, bodies, strict=True):
            message.answered(replace(answer, body=body))

    def _take(self) -> list[Request]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        return waiting

    def _flush(self) -> None:
        request = BatchRequest(self, self._take())
        try:
            self._sender.send(request)
        except Exception:
            # A defect in a sender must not lose messages: they may have been sent.
            log.exception("the sender failed")
            request.answered(Answer(0, b"", None, ErrorClass.PROTOCOL, True, 0.0))


def result_bodies(answer: Answer, batch: BatchText, message_ids: Sequence[int]) -> Iterator[bytes]:
    """Yield what an answer says of each of the messages.

    That is all of it where there are no results: by the description, or because all were refused together.
    It is nothing where a good answer lacks the result, so that the message's outcome counts as not known.
    """
    whole = [answer.body] * len(message_ids)
    if batch.results is None or answer.error is not ErrorClass.NONE:
        yield from whole
        return
    results = _results(answer.body, batch, message_ids)
    if results is None:
        yield from whole if not 200 <= answer.status < 300 else [b""] * len(message_ids)
        return
    for result in results:
        yield b"" if result is MISSING else orjson.dumps(result)


def _results(body: bytes, batch: BatchText, message_ids: Sequence[int]) -> list[object] | None:
    """Return the result of each message, MISSING where there is none; None where there are no results at all."""
    assert batch.results is not None
    try:
        found = batch.results.find(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None
    if batch.id is not None and isinstance(found, list):
        by_id = {str(batch.id.find(result)): result for result in found}
        return [by_id.get(str(message_id), MISSING) for message_id in message_ids]
    return found if isinstance(found, list) and len(found) == len(message_ids) else None
