"""Makes every call a span of the trace that its caller takes part in, where traces are wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.api.interceptors.handlers import Context, Handler, Interceptor, around
from server.observability.tracing import CallTracer


class TracingInterceptor(Interceptor):
    """Stands inside of what turns refusals into a status, so that a span tells of them."""

    def __init__(self, tracer: CallTracer) -> None:
        self._tracer = tracer

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler there is."""
        method = call.method
        texts = {key: value for key, value in call.invocation_metadata or () if isinstance(value, str)}

        @asynccontextmanager
        async def traced(context: Context) -> AsyncIterator[None]:
            with self._tracer.call(method, texts):
                yield

        return around(handler, traced)
