"""Streams are closed when their callers leave, not when the garbage collector comes."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from server.api.interceptors.writing import ResponseWriter


class GoneContext:
    """The context of a call whose caller left."""

    async def write(self, response: object) -> None:
        raise CancelledError


async def test_a_stream_is_closed_before_its_cancellation_goes_on() -> None:
    closed = []

    async def stream(request: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            closed.append(request)

    gone: Any = GoneContext()
    with pytest.raises(CancelledError):
        await ResponseWriter().write_all(stream("call"), gone)
    assert closed == ["call"]
