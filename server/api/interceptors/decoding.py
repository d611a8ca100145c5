"""Refuses requests that are no message of their type as what they are: INVALID_ARGUMENT.

gRPC by itself answers UNKNOWN with the decoder's words and logs a traceback, for whatever bytes
anybody sends. Here a request that cannot be read becomes a marker instead, and the handler's
place is taken by a refusal. The interceptors around this one see contexts only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from server.api.interceptors.handlers import Context, Handler, Interceptor, behaviour_of, rebuilt
from server.domain.errors import MalformedRequest

_UNREADABLE: Final = object()


class DecodingInterceptor(Interceptor):
    """Raises MalformedRequest in place of a handler whose request cannot be read."""

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler there is."""
        return _reading(handler)


def _reading(handler: Handler) -> Handler:
    behaviour, decode = behaviour_of(handler), handler.request_deserializer
    assert decode is not None, "every method of this server takes a message"

    def serve(request: Any, context: Context) -> Any:
        return behaviour(_readable_ones(request) if handler.request_streaming else _readable(request), context)

    def attempt(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _UNREADABLE

    return rebuilt(handler, serve, attempt)


def _readable(request: Any) -> Any:
    if request is _UNREADABLE:
        raise MalformedRequest
    return request


async def _readable_ones(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
