"""Wraps the handlers of all four kinds of calls, which interceptors would do four times each.

A wrapper sees a call from its beginning to its end, whichever that is: an answer, an error,
or a cancellation.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any

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

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with guard(context):
            responses = behaviour(arriving(request), context)
            if inspect.isawaitable(responses):  # it writes to the context by itself
                await responses
                return
            async with aclosing(responses):
                async for response in responses:
                    sent()
                    try:
                        yield response
                    except Exception as error:  # whoever writes the responses throws it in
                        await responses.athrow(error)

    return rebuilt(handler, stream if handler.response_streaming else answer)


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


class ClosingInterceptor(grpc.aio.ServerInterceptor):
    """The outermost one: closes a stream's generator at once when its caller goes away.

    gRPC by itself leaves a cancelled call's generator to the garbage collector, and with it
    whatever the generator holds. A response that finds no room for `patience` seconds, because
    the caller does not read, ends the call: the generator is thrown ReaderTooSlow.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps handlers that stream their response."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming:
            return handler
        behaviour = behaviour_of(handler)

        async def write(request: Any, context: Context) -> None:
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    try:
                        async with asyncio.timeout(self._patience):
                            await context.write(response)
                    except TimeoutError:
                        await responses.athrow(ReaderTooSlow())

        return rebuilt(handler, write)
