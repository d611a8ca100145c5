"""What the client needs of gRPC and of time, for threads; `mailing.aio.transport` has the same for asyncio.

Everything above these two modules is written once, in `mailing.aio`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from time import sleep
from typing import Any, TypeVar, cast

import grpc

from mailing.channel import AuthorizedChannel, Token, channel_options
from mailing.errors import MailingError

__all__ = ["Call", "Channel", "Items", "each", "open_channel", "send_all", "sleep"]

_T = TypeVar("_T")

Channel = grpc.Channel
Call = Callable[..., _T]
Items = Iterable[_T]


def open_channel(address: str, token: Token | None, credentials: grpc.ChannelCredentials | None) -> Channel:
    """Return a channel to `address` ("host:port" or "unix:/path"); it connects at its first call."""
    options = channel_options(address)
    channel = (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    )
    return cast("Channel", AuthorizedChannel(channel, token)) if token else channel


def each(items: Items[_T]) -> Iterator[_T]:
    """Iterate over the items."""
    return iter(items)


def send_all(method: Any, requests: Iterator[Any]) -> Any:
    """Make a call of a method that takes a stream of requests; return its response.

    Raise what the iterator raises, after the call was cancelled, or a gRPC error.
    """
    reading = _Reading(requests)
    call = method.future(iter(reading))
    reading.attach(call)
    try:
        return call.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        if reading.error is not None:
            raise reading.error from None
        if isinstance(error, grpc.RpcError):
            raise
        raise MailingError(grpc.StatusCode.CANCELLED, message="the call was cancelled") from error
    finally:
        call.cancel()


class _Reading:
    """The requests of a call, which gRPC reads in its own thread; cancels the call when the iterator fails.

    gRPC would only log the error, and complete the stream as if nothing were missing.
    """

    def __init__(self, requests: Iterator[Any]) -> None:
        self.error: BaseException | None = None
        self._requests = requests
        self._attached = threading.Event()

    def attach(self, call: grpc.Future[Any]) -> None:
        self._call = call
        self._attached.set()

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._requests
        except GeneratorExit:
            raise
        except BaseException as error:
            # Cancelled before the generator ends: otherwise the end would complete the stream.
            self.error = error
            self._attached.wait()
            self._call.cancel()
