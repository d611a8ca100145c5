"""Handlers of calls: the four kinds of gRPC method are distinguished here, once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc.aio import ServicerContext

if TYPE_CHECKING:  # generic for the type checker only
    Context = ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Context, Handler = ServicerContext, grpc.RpcMethodHandler

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
Behaviour = Callable[[Any, Context], Any]


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the function that serves the call."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("a handler without a function")
    return cast("Behaviour", found)


def reading_itself(handler: Handler, behaviour: Behaviour) -> Handler:
    """Return a handler that is begun before its request has arrived, and reads it from its context as bytes.

    gRPC reads the request of a unary method before anything else happens, and for as long as it takes;
    a method that takes a stream is begun at once.
    """
    make: Any = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    made: Handler = make(behaviour, None, handler.response_serializer)
    return made
