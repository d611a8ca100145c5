"""Counts calls in the metric families that dashboards for gRPC know.

The families are those of py-grpc-prometheus, whose own interceptor does not serve asyncio:
`grpc_server_started_total`, `_handled_total`, `_msg_received_total`, `_msg_sent_total` and
`grpc_server_handling_seconds`.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import grpc
from prometheus_client import CollectorRegistry
from py_grpc_prometheus import grpc_utils, server_metrics

from server.api.interceptors.handlers import Context, Handler, Interceptor, around

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class MetricsInterceptor(Interceptor):
    """Counts every call and how it ended. One per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = server_metrics.init_metrics(registry)
        self._handled = server_metrics.get_grpc_server_handled_counter(False, registry)

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap every handler there is; unknown methods are not counted, their names being the caller's."""
        service, method, _ = grpc_utils.split_method_call(call)
        kind = grpc_utils.get_method_type(handler.request_streaming, handler.response_streaming)
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        families = self._families

        @asynccontextmanager
        async def counting(context: Context) -> AsyncIterator[None]:
            families["grpc_server_started_counter"].labels(**labels).inc()
            began = perf_counter()
            failure: BaseException | None = None
            try:
                yield
            except BaseException as error:  # aborts and cancellations are no ordinary exceptions
                failure = error
                raise
            finally:
                code = _code_of(context, failure)
                self._handled.labels(**labels, grpc_code=code.name).inc()
                families["grpc_server_handled_histogram"].labels(**labels).observe(perf_counter() - began)

        return around(
            handler,
            counting,
            received=families["grpc_server_stream_msg_received"].labels(**labels).inc,
            sent=families["grpc_server_stream_msg_sent"].labels(**labels).inc,
        )


def _code_of(context: Context, failure: BaseException | None) -> grpc.StatusCode:
    """Return the status a call ends with, as far as it is known before it is sent."""
    if isinstance(failure, CancelledError | GeneratorExit):
        remaining = context.time_remaining()
        expired = remaining is not None and remaining <= 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
    stated: grpc.StatusCode | int | None = context.code()
    code = _CODES.get(stated, grpc.StatusCode.UNKNOWN) if isinstance(stated, int) else stated or grpc.StatusCode.OK
    if failure is not None and code is grpc.StatusCode.OK:
        return grpc.StatusCode.UNKNOWN
    return code
