"""The API over HTTP as an ASGI application: each request becomes one call, which ends when its caller leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import grpc
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from mailing.v1.error_pb2 import ErrorReason
from server.console.guard import Forged, check_origin
from server.console.http_api.bindings import Binding, Routes
from server.console.http_api.exchange import Exchange
from server.console.http_api.held import HeldBytes
from server.console.http_api.statuses import Refusal, refusal
from server.console.service import open_channel

MOST_STREAMS = 200
"""Streams at once of one caller: a token, or without one a host."""

_UNSPECIFIED = ErrorReason.ERROR_REASON_UNSPECIFIED

_STREAM_CHANNELS = 4
"""Connections to the API for streams: one has room for 500, and the listener for 1,000 callers."""


class HttpApi:
    """An ASGI application for the API at `address`, in gRPC's form. Calls and streams have connections of their own."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, held: HeldBytes | None = None
    ) -> None:
        channels = [open_channel(address, credentials) for _ in range(_STREAM_CHANNELS)]
        self._unary = open_channel(address, credentials)
        self._streams = cycle(channels)
        self._channels = [self._unary, *channels]
        self._routes = Routes()
        self._held = held or HeldBytes()
        self._open: Counter[str] = Counter()

    async def close(self) -> None:
        """Cancel all calls."""
        for channel in self._channels:
            await channel.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        abort = scope.get("state", {}).get("abort", _nothing)
        with self._held.hold(abort) as hold:
            exchange = Exchange(scope, receive, send, hold)
            try:
                binding, in_path = self._route(scope)
                request = await exchange.request(binding, in_path)
                await _until_left(receive, self._serve(binding, request, exchange))
            except Refusal as refused:
                await exchange.refuse(refused)

    def _route(self, scope: Scope) -> tuple[Binding, Mapping[str, str]]:
        try:
            check_origin(Request(scope))
        except Forged:
            sentence = "A page of another site may not call the API."
            raise refusal(grpc.StatusCode.PERMISSION_DENIED, _UNSPECIFIED, sentence) from None
        found = self._routes.at(scope["path"])
        if not found:
            sentence = "There is no such path: docs/ lists them, and ids are digits."
            raise refusal(grpc.StatusCode.NOT_FOUND, _UNSPECIFIED, sentence)
        if scope["method"] not in found:
            verbs = ", ".join(found)
            sentence = f"This path takes {verbs}."
            headers = {"allow": verbs}
            raise refusal(grpc.StatusCode.UNIMPLEMENTED, _UNSPECIFIED, sentence, http_status=405, headers=headers)
        return found[scope["method"]]

    async def _serve(self, binding: Binding, request: Message, exchange: Exchange) -> None:
        name = f"/{binding.method.containing_service.full_name}/{binding.method.name}"
        if binding.method.server_streaming:
            with self._counted(exchange.caller):
                watch = next(self._streams).unary_stream(name, _bytes_of, binding.response.FromString)
                await exchange.stream(watch(request, metadata=exchange.metadata))
        else:
            ask = self._unary.unary_unary(name, _bytes_of, binding.response.FromString)
            await exchange.answer(ask(request, metadata=exchange.metadata))

    @contextmanager
    def _counted(self, caller: str) -> Iterator[None]:
        """Count a stream of a caller for the time of the block. Raise Refusal for one too many."""
        if self._open[caller] >= MOST_STREAMS:
            sentence = f"At most {MOST_STREAMS} streams at once over HTTP."
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise refusal(code, ErrorReason.ERROR_REASON_LIMIT_REACHED, sentence, retry_after=1)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


async def _until_left(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work unless the caller leaves before."""
    serving, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((serving, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        over = serving.done()
        for task in (serving, left):
            task.cancel()
        await asyncio.wait((serving, left))
    if over:
        serving.result()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString()


def _nothing() -> None:
    """Do nothing: without a listener of ours there is no connection to end."""
