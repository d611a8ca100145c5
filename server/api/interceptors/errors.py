"""Turns what handlers raise into the status that `server.api.error_table` has for it.

Where the caller has left, gRPC fails every write with an error of its own: that is a cancellation.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NoReturn

import grpc
from google.rpc.status_pb2 import Status
from grpc._cython.cygrpc import ExecuteBatchError  # type: ignore[import-not-found]
from grpc.aio import AbortError
from grpc_status.rpc_status import to_status

from server.api.error_table import status_of
from server.api.handlers import Context, Handler, Interceptor, around
from server.domain.errors import NotServedYet


class ErrorInterceptor(Interceptor):
    """Ends failed calls with their status. Cancellations and aborts pass."""

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler."""
        method = call.method

        @asynccontextmanager
        async def translating(context: Context) -> AsyncIterator[None]:
            with _cancelled_where_left():
                try:
                    yield
                except (AbortError, ExecuteBatchError):
                    raise
                except NotImplementedError:  # generated code, for methods without an implementation
                    await _abort(context, status_of(NotServedYet(method), method))
                except Exception as error:
                    await _abort(context, status_of(error, method))

        return around(handler, translating)


@contextmanager
def _cancelled_where_left() -> Iterator[None]:
    try:
        yield
    except ExecuteBatchError as left:
        raise CancelledError from left


async def _abort(context: Context, status: Status) -> NoReturn:
    """End the call with a status, keeping the trailing metadata that was already set."""
    final = to_status(status)
    trailing = (*(context.trailing_metadata() or ()), *final.trailing_metadata)
    await context.abort(final.code, final.details, trailing)
    raise AssertionError("aborting does not return")
