"""Streams are closed when their callers leave, not when the garbage collector comes."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from server.api.interceptors.handlers import WritingInterceptor


class GoneContext:
    """The context of a call whose caller left."""

    async def write(self, response: object) -> None:
        raise CancelledError


async def test_a_stream_is_closed_before_its_cancellation_goes_on() -> None:
    closed = []

    async def stream(request: object, context: object) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append(request)

    async def continuation(details: object) -> Any:
        return grpc.unary_stream_rpc_method_handler(stream)

    details: Any = None
    handler = await WritingInterceptor().intercept_service(continuation, details)
    behaviour: Any = handler and handler.unary_stream
    with pytest.raises(CancelledError):
        await behaviour("call", GoneContext())
    assert closed == ["call"]
