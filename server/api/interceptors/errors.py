"""Ends failed calls with the status that `server.api.error_table` has for what was raised.

Where the caller has left, gRPC fails every write with an error of its own: that is a cancellation.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import NoReturn

import grpc
from grpc._cython.cygrpc import ExecuteBatchError  # type: ignore[import-not-found]
from grpc_status.rpc_status import to_status

from server.api.error_table import status_of
from server.api.handlers import Context

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _CancelledWhereLeft:
    """Raises CancelledError for gRPC's error of a call whose caller has left."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is ExecuteBatchError:
            raise CancelledError from error


CANCELLED_WHERE_LEFT = _CancelledWhereLeft()
"""Has no state: all calls use it."""


def refusal(error: Exception, method: str) -> grpc.Status:
    """Return the status of a call that failed with `error`."""
    status: grpc.Status = to_status(status_of(error, method))
    return status


async def end_with(context: Context, status: grpc.Status) -> NoReturn:
    """End the call with a status, keeping the trailing metadata that was already set."""
    trailing = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
    await context.abort(status.code, status.details, trailing)
    raise AssertionError("aborting does not return")


def code_of_cancelled(context: Context) -> grpc.StatusCode:
    """Return the status of a call whose caller left, or whose time is over."""
    remaining = context.time_remaining()
    expired = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED


def stated_code(context: Context) -> grpc.StatusCode:
    """Return the status that the handler itself has ended the call with."""
    stated: grpc.StatusCode | int | None = context.code()
    return _CODES.get(stated, grpc.StatusCode.UNKNOWN) if isinstance(stated, int) else stated or grpc.StatusCode.OK
