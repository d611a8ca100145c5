"""Wraps the handlers of all four kinds of calls, which interceptors would do four times each.

A wrapper sees a call from its beginning to its end, whichever that is: an answer, an error,
or a cancellation.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import takewhile
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
    """Return a handler that runs `handler` inside `guard` and tells of each stream message."""
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
    """Return the function that serves the call."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("a handler without a function")
    function: Callable[[Any, Any], Any] = found
    return function


def rebuilt(
    handler: Handler, behaviour: Callable[[Any, Context], Any], decode: Callable[[bytes], Any] | None = None
) -> Handler:
    """Return `handler` with another function, and with another decoder of requests if one is given."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    made: Handler = make(behaviour, decode or handler.request_deserializer, handler.response_serializer)
    return made


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers there are; methods that there are not, it leaves to gRPC."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the wrapped handler of the call's method, if there is one."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self.wrap(handler, handler_call_details)

    @abstractmethod
    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Return what serves this call in place of `handler`; may be `handler`."""


class WritingInterceptor(Interceptor):
    """The innermost one: takes the responses of a stream from its generator and writes them.

    So nothing but this lies between a stream and its connection, and the generator is closed at once
    when the caller goes away: gRPC would leave it to the garbage collector, and with it whatever it
    holds. A response that finds no room for `patience` seconds, because the caller does not read,
    ends the call: the generator is thrown ReaderTooSlow.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._writes = _Writes(patience)

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
            writer = _Writer(self._writes)
            async with aclosing(responses):
                async for response in responses:
                    try:
                        await writer.write(context, response)
                    except TimeoutError:
                        await responses.athrow(ReaderTooSlow())

        return rebuilt(handler, stream)


class _Writes:
    """The writes under way. Those that find no room for `patience` seconds are given up.

    One timer for all of them: a timer for each would cost a tenth of the write.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[_Writer, float] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, writer: _Writer, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a write begins."""
        self._since[writer] = loop.time()
        if self._timer is None:
            self._look_again(loop)

    def end(self, writer: _Writer) -> None:
        """Note that it has ended, however it did."""
        del self._since[writer]

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(min(self._patience / 4, 1.0), self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        overdue = loop.time() - self._patience
        for writer in [*takewhile(lambda one: self._since[one] < overdue, self._since)]:
            writer.give_up()
        if self._since:
            self._look_again(loop)


class _Writer:
    """Sends the responses of one stream, from its task."""

    __slots__ = ("_given_up", "_loop", "_task", "_writes")

    def __init__(self, writes: _Writes) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self._writes = writes
        self._loop = task.get_loop()
        self._task = task
        self._given_up = False

    async def write(self, context: Context, response: Any) -> None:
        """Return when there was room for the response. Raise TimeoutError if it was given up."""
        self._writes.begin(self, self._loop)
        try:
            await context.write(response)
        except asyncio.CancelledError:
            # As with asyncio.timeout: who cancelled it, too, has the last word.
            if self._given_up and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._writes.end(self)

    def give_up(self) -> None:
        """End the write under way, once."""
        if not self._given_up:
            self._given_up = True
            self._task.cancel()
