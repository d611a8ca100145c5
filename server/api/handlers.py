"""Handlers of calls, and how to wrap them: the four kinds of gRPC method are distinguished here, once.

A wrapper sees a call from its beginning to its end, whichever that is: an answer, an error or a
cancellation. `Interceptor` is the base of everything in `server.api.interceptors`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc.aio import ServicerContext

if TYPE_CHECKING:  # generic for the type checker only
    Context = ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Context, Handler = ServicerContext, grpc.RpcMethodHandler

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of known methods; gRPC answers for unknown ones."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the wrapped handler of the call's method, None if there is no such method."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self.wrap(handler, handler_call_details)

    @abstractmethod
    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Return what serves this call in place of `handler`; may be `handler`."""


def _ignore() -> None:
    pass


def around(
    handler: Handler,
    guard: Callable[[Context], AbstractAsyncContextManager[None]],
    received: Callable[[], None] = _ignore,
    sent: Callable[[], None] = _ignore,
) -> Handler:
    """Return a handler that runs `handler` inside `guard`.

    `received` and `sent` are called for each message of the request and of the response.
    """
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
            counting = context if sent is _ignore else cast("Context", _CountingContext(context, sent))
            await behaviour(arriving(request), counting)

    return rebuilt(handler, stream if handler.response_streaming else answer)


class _CountingContext:
    """A call's context that reports each stream message written to it."""

    def __init__(self, context: Context, sent: Callable[[], None]) -> None:
        self._context = context
        self._sent = sent

    def write(self, response: Any) -> Awaitable[None]:
        self._sent()
        return self._context.write(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def checking(handler: Handler, check: Callable[[Any], Any], decode: Callable[[bytes], Any] | None = None) -> Handler:
    """Return `handler` so that it gets what `check` returns for each request, or fails with what it raises."""
    behaviour = behaviour_of(handler)

    async def each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield check(request)

    def serve(request: Any, context: Context) -> Any:
        return behaviour(each(request) if handler.request_streaming else check(request), context)

    return rebuilt(handler, serve, decode)


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
