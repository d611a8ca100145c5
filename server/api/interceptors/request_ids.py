"""Every call has a request id: the caller's, or one made here.

It comes in the metadata `x-request-id`, goes back in the trailing metadata of the same name,
whatever the call's end, and stands in every log line written on the way, beside the mailing,
message and client that a unary request is about.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any
from uuid import uuid4

import grpc
from structlog.contextvars import bind_contextvars

from server.api.interceptors.handlers import Context, Handler, Interceptor, around, behaviour_of, rebuilt

REQUEST_ID = "x-request-id"

_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What cannot break a log line or a header, and is no longer than anybody needs."""

_SUBJECTS = ("mailing", "message", "client")

_log = logging.getLogger(__name__)


class RequestInterceptor(Interceptor):
    """Gives each call its id; notes its end at level debug. Belongs outside of all that logs or refuses."""

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler there is."""
        request_id = request_id_of(call.invocation_metadata)
        method = call.method

        @asynccontextmanager
        async def identified(context: Context) -> AsyncIterator[None]:
            # Each call is a task of its own, so this ends with the call.
            bind_contextvars(request_id=request_id)
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            began, failure = perf_counter(), ""
            try:
                yield
            except BaseException as error:
                failure = type(error).__name__
                raise
            finally:
                if _log.isEnabledFor(logging.DEBUG):
                    facts = {"method": method, "seconds": round(perf_counter() - began, 6)}
                    _log.debug("call ended", extra=facts | ({"failure": failure} if failure else {}))

        return around(handler if handler.request_streaming else _named(handler), identified)


def request_id_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the caller's id if there is exactly one and it is acceptable, else a new one."""
    given = [value for key, value in metadata or () if key == REQUEST_ID]
    if len(given) == 1 and isinstance(given[0], str) and _ACCEPTED.fullmatch(given[0]):
        return given[0]
    return uuid4().hex


def subjects_of(request: Any) -> dict[str, int]:
    """Return the ids of what a request is about: its `mailing_id` or `mailing.id`, and so on."""
    found = {}
    for subject in _SUBJECTS:
        key = getattr(request, f"{subject}_id", 0) or getattr(getattr(request, subject, None), "id", 0)
        if key:
            found[f"{subject}_id"] = key
    return found


def _named(handler: Handler) -> Handler:
    """Return the handler so that the subjects of its request are known to the log."""
    behaviour: Callable[[Any, Context], Awaitable[Any] | AsyncIterator[Any]] = behaviour_of(handler)

    def serve(request: Any, context: Context) -> Any:
        bind_contextvars(**subjects_of(request))
        return behaviour(request, context)

    return rebuilt(handler, serve)
