"""Rejects requests that are too large, or not a message of their type.

gRPC by itself answers UNKNOWN with the decoder's words and logs a traceback, for any bytes that
anybody sends, and nothing but a status of its own to what is above its limit of size. Here a message
that cannot be taken becomes the error that says so, which is raised in place of the handler. The
interceptors around this one see contexts only.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.api.handlers import Handler, Interceptor, checking
from server.domain.errors import DomainError, MalformedRequest, MessageTooLarge


class DecodingInterceptor(Interceptor):
    """Raises in place of a handler whose request cannot be decoded, or has more than `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler."""
        decode = handler.request_deserializer
        assert decode is not None, "every method of this server takes a message"

        def decode_or_mark(data: bytes) -> Any:
            if len(data) > self._most:
                return MessageTooLarge(len(data), self._most)
            try:
                return decode(data)
            except DecodeError:
                return MalformedRequest()

        return checking(handler, _readable, decode_or_mark)


def _readable(request: Any) -> Any:
    if isinstance(request, DomainError):
        raise request
    return request
