"""Wraps the handlers of all four kinds of calls, which interceptors would do four times each.

A wrapper sees a call from its beginning to its end, whichever that is: an answer, an error,
or a cancellation.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc.aio import ServicerContext

from server.domain.errors import ReaderTooSlow

if TYPE_CHECKING:  # generic for the type checker only
    Context = ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Context, Handler = ServicerContext, grpc.RpcMethodHandler

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


def _nothing() -> None:
    pass


def around(
    handler: Handler,
    guard: Callable[[Context], AbstractAsyncContextManager[None]],
    received: Callable[[], None] = _nothing,
    sent: Callable[[], None] = _nothing,
) -> Handler:
    """Returns a handler that runs `handler` inside `guard` and tells of each stream message."""
    behaviour = behaviour_of(handler)

    def arriving(request: Any) -> Any:
        if handler.request_streaming:
            return _counted(request, received)
        received()
        return request

    async def answer(request: Any, context: Context) -> Any:
        async with guard(context):
            response = await behaviour(arriving(request), context)
            sent()
            return response

    async def stream(request: Any, context: Context) -> None:
        async with guard(context):
            telling = context if sent is _nothing else cast("Context", _Telling(context, sent))
            await behaviour(arriving(request), telling)

    return rebuilt(handler, stream if handler.response_streaming else answer)


class _Telling:
    """A call's context that tells of each stream message written to it."""

    def __init__(self, context: Context, sent: Callable[[], None]) -> None:
        self._context = context
        self._sent = sent

    def write(self, response: Any) -> Awaitable[None]:
        self._sent()
        return self._context.write(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _counted(requests: AsyncIterator[Any], received: Callable[[], None]) -> AsyncIterator[Any]:
    async for request in requests:
        received()
        yield request


def behaviour_of(handler: Handler) -> Callable[[Any, Context], Any]:
    """Returns the function that serves the call."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("a handler without a function")
    function: Callable[[Any, Any], Any] = found
    return function


def rebuilt(
    handler: Handler, behaviour: Callable[[Any, Context], Any], decode: Callable[[bytes], Any] | None = None
) -> Handler:
    """Returns `handler` with another function, and with another decoder of requests if one is given."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    made: Handler = make(behaviour, decode or handler.request_deserializer, handler.response_serializer)
    return made


class WritingInterceptor(grpc.aio.ServerInterceptor):
    """The innermost one: takes the responses of a stream from its generator and writes them.

    So nothing but this lies between a stream and its connection, and the generator is closed at once
    when the caller goes away: gRPC would leave it to the garbage collector, and with it whatever it
    holds. A response that finds no room for `patience` seconds, because the caller does not read,
    ends the call: the generator is thrown ReaderTooSlow.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._writers: set[_Writer] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps handlers that stream their response."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming:
            return handler
        behaviour = behaviour_of(handler)

        async def stream(request: Any, context: Context) -> None:
            responses = behaviour(request, context)
            if inspect.isawaitable(responses):  # it writes to the context by itself
                await responses
                return
            with self._writing() as writer:
                async with aclosing(responses):
                    async for response in responses:
                        try:
                            await writer.write(context, response)
                        except TimeoutError:
                            await responses.athrow(ReaderTooSlow())

        return rebuilt(handler, stream)

    @contextmanager
    def _writing(self) -> Iterator[_Writer]:
        writer = _Writer()
        self._writers.add(writer)
        if self._timer is None:
            self._sweep(writer.loop)
        try:
            yield writer
        finally:
            self._writers.discard(writer)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives up writes that wait for too long, and looks again soon, while there are streams.

        One timer for all streams: a timer for each response would cost a tenth of sending it.
        """
        self._timer = None
        overdue = loop.time() - self._patience
        for writer in self._writers:
            writer.give_up(overdue)
        if self._writers:
            self._timer = loop.call_later(min(self._patience / 4, 5.0), self._sweep, loop)


class _Writer:
    """Sends the responses of one stream, from its task."""

    __slots__ = ("_began_at", "_given_up", "_task", "loop")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self.loop = task.get_loop()
        self._task = task
        self._began_at = math.inf
        self._given_up = False

    async def write(self, context: Context, response: Any) -> None:
        """Returns when there was room for the response. Raises TimeoutError if it was given up."""
        self._began_at = self.loop.time()
        try:
            await context.write(response)
        except asyncio.CancelledError:
            # As with asyncio.timeout: who cancelled it, too, has the last word.
            if self._given_up and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._began_at = math.inf

    def give_up(self, overdue: float) -> None:
        """Ends a write that began before the time `overdue`."""
        if self._began_at < overdue and not self._given_up:
            self._given_up = True
            self._task.cancel()
