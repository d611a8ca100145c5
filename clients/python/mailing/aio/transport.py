"""What the client needs of gRPC and of time, for asyncio; `mailing.transport` has the same for threads."""

from __future__ import annotations

from asyncio import InvalidStateError, sleep
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast

import grpc

from mailing.channel import AuthorizedChannel, Token, channel_options

__all__ = ["Call", "Channel", "Items", "each", "open_channel", "send_all", "sleep"]

_T = TypeVar("_T")

Channel = grpc.aio.Channel
Call = Callable[..., Awaitable[_T]]
Items = AsyncIterable[_T] | Iterable[_T]


def open_channel(address: str, token: Token | None, credentials: grpc.ChannelCredentials | None) -> Channel:
    """Return a channel to `address` ("host:port" or "unix:/path"); it connects at its first call."""
    options = channel_options(address)
    channel = (
        grpc.aio.secure_channel(address, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(address, options)
    )
    return cast("Channel", AuthorizedChannel(channel, token)) if token else channel


async def each(items: Items[_T]) -> AsyncIterator[_T]:
    """Iterate over the items, of a plain iterable too: that one must not block."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def send_all(method: Any, requests: AsyncIterator[Any]) -> Any:
    """Make a call of a method that takes a stream of requests; return its response.

    Raise what the iterator raises, after the call was cancelled, or a gRPC error.
    """
    call = method()
    try:
        async for request in requests:
            await call.write(request)
        await call.done_writing()
        return await call
    except InvalidStateError:  # the service answered before it read everything
        return await call
    finally:
        call.cancel()
