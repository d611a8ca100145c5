"""Rejects requests that are not a message of their type: INVALID_ARGUMENT.

gRPC by itself answers UNKNOWN with the decoder's words and logs a traceback, for any bytes that
anybody sends. Here a request that cannot be decoded becomes a marker, and MalformedRequest is
raised in place of the handler. The interceptors around this one see contexts only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from server.api.handlers import Context, Handler, Interceptor, behaviour_of, rebuilt
from server.domain.errors import MalformedRequest

_UNREADABLE: Final = object()


class DecodingInterceptor(Interceptor):
    """Raises MalformedRequest in place of a handler whose request cannot be decoded."""

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler."""
        return _decoding(handler)


def _decoding(handler: Handler) -> Handler:
    behaviour, decode = behaviour_of(handler), handler.request_deserializer
    assert decode is not None, "every method of this server takes a message"

    def serve(request: Any, context: Context) -> Any:
        return behaviour(_all_readable(request) if handler.request_streaming else _readable(request), context)

    def decode_or_mark(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _UNREADABLE

    return rebuilt(handler, serve, decode_or_mark)


def _readable(request: Any) -> Any:
    if request is _UNREADABLE:
        raise MalformedRequest
    return request


async def _all_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
