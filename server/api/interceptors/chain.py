"""The interceptors in their order, the outermost first, and the reason for each place.

The order is a promise to callers and operators: whatever ends a call, its answer carries a request
id and a status of the error table, and the call is counted and logged.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from server.api.handlers import Interceptor
from server.api.interceptors.decoding import DecodingInterceptor
from server.api.interceptors.errors import ErrorInterceptor
from server.api.interceptors.identity import IdentityInterceptor
from server.api.interceptors.limits import CallLimits, LimitInterceptor
from server.api.interceptors.metrics import MetricsInterceptor
from server.api.interceptors.request_ids import RequestInterceptor
from server.api.interceptors.tracing import TracingInterceptor
from server.api.interceptors.unserved import UnservedFieldsInterceptor
from server.api.interceptors.writing import WritingInterceptor
from server.auth import Authenticator
from server.observability.tracing import CallTracer


def interceptor_chain(
    registry: CollectorRegistry, authenticator: Authenticator, limits: CallLimits, tracer: CallTracer | None = None
) -> Sequence[Interceptor]:
    """Return every interceptor, the outermost first."""
    return (
        # 1. Everything inside is logged with the request id, and every answer carries it.
        RequestInterceptor(),
        # 2. Outside of the errors, so that it counts the status which the caller gets.
        MetricsInterceptor(registry),
        # 3. Whatever is raised inside becomes a status; the steps below reject a call by raising.
        ErrorInterceptor(),
        # 4. Inside of the errors, so that a span sees the exception itself.
        *([TracingInterceptor(tracer)] if tracer else []),
        # 5. Before the limits, which count per principal.
        IdentityInterceptor(authenticator),
        # 6. Before anything the handlers do: a call over a limit costs nothing more.
        LimitInterceptor(limits),
        # 7. A request that cannot be taken counts against its caller's limits like any other.
        DecodingInterceptor(limits.message_bytes),
        # 8. Inside of the decoding, since it reads the request.
        UnservedFieldsInterceptor(),
        # 9. The innermost: nothing lies between a stream's generator and its connection.
        WritingInterceptor(limits.unread),
    )
