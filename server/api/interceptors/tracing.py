"""Makes every call a span of its caller's trace, where tracing is configured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.api.handlers import Context, Handler, Interceptor, around
from server.observability.tracing import CallTracer


class TracingInterceptor(Interceptor):
    """Wraps each call in a span, which records the exception of a failed call."""

    def __init__(self, tracer: CallTracer) -> None:
        self._tracer = tracer

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler."""
        method = call.method
        texts = {key: value for key, value in call.invocation_metadata or () if isinstance(value, str)}

        @asynccontextmanager
        async def traced(context: Context) -> AsyncIterator[None]:
            with self._tracer.call(method, texts):
                yield

        return around(handler, traced)
