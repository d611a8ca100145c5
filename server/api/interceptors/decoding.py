"""Rejects requests that are not a message of their type: INVALID_ARGUMENT.

gRPC by itself answers UNKNOWN with the decoder's words and logs a traceback, for any bytes that
anybody sends. Here a request that cannot be decoded becomes a marker, and MalformedRequest is
raised in place of the handler. The interceptors around this one see contexts only.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from server.api.handlers import Handler, Interceptor, checking
from server.domain.errors import MalformedRequest

_UNREADABLE: Final = object()


class DecodingInterceptor(Interceptor):
    """Raises MalformedRequest in place of a handler whose request cannot be decoded."""

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler."""
        decode = handler.request_deserializer
        assert decode is not None, "every method of this server takes a message"

        def decode_or_mark(data: bytes) -> Any:
            try:
                return decode(data)
            except DecodeError:
                return _UNREADABLE

        return checking(handler, _readable, decode_or_mark)


def _readable(request: Any) -> Any:
    if request is _UNREADABLE:
        raise MalformedRequest
    return request
