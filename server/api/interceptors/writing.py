"""Writes the responses of streams, and ends streams whose callers do not read.

gRPC would leave the generator of a stream to the garbage collector when its caller goes away, and
with it everything it holds. Here the generator is closed at once.
"""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import Any

import grpc

from server.api.handlers import Context, Handler, Interceptor, behaviour_of, rebuilt
from server.api.write_deadlines import StreamWriter, WriteDeadlines
from server.domain.errors import ReaderTooSlow


class WritingInterceptor(Interceptor):
    """Takes responses from a stream's generator and writes them to its connection.

    When a write takes more than `patience` seconds, ReaderTooSlow is thrown into the generator.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._deadlines = WriteDeadlines(patience)

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap handlers that stream their response."""
        if not handler.response_streaming:
            return handler
        behaviour = behaviour_of(handler)

        async def stream(request: Any, context: Context) -> None:
            responses = behaviour(request, context)
            if inspect.isawaitable(responses):  # it writes to the context by itself
                await responses
                return
            writer = StreamWriter(self._deadlines)
            async with aclosing(responses):
                async for response in responses:
                    try:
                        await writer.write(context, response)
                    except TimeoutError:
                        await responses.athrow(ReaderTooSlow())

        return rebuilt(handler, stream)
