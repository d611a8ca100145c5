"""Counts calls in the metric families that gRPC dashboards expect.

The families are those of py-grpc-prometheus, whose own interceptor does not serve asyncio:
`grpc_server_started_total`, `_handled_total`, `_msg_received_total`, `_msg_sent_total` and
`grpc_server_handling_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
from prometheus_client import CollectorRegistry, Counter
from py_grpc_prometheus import grpc_utils, server_metrics

from server.api.handlers import Handler


class CallMetrics:
    """The families. One per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = server_metrics.init_metrics(registry)
        self._handled = server_metrics.get_grpc_server_handled_counter(False, registry)

    def of(self, handler: Handler, method: str) -> MethodMetrics:
        """Return the counters of a method, whose series appear with this."""
        _, service, name = method.split("/", 2)
        kind = grpc_utils.get_method_type(handler.request_streaming, handler.response_streaming)
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": name}
        return MethodMetrics(self._families, self._handled, labels)


class MethodMetrics:
    """Counts the calls of one method: `started`, `received` and `sent` are called for each call and message."""

    started: Callable[[], None]
    received: Callable[[], None]
    sent: Callable[[], None]

    def __init__(self, families: dict[str, Counter], handled: Counter, labels: dict[str, str]) -> None:
        self.started = families["grpc_server_started_counter"].labels(**labels).inc
        self.received = families["grpc_server_stream_msg_received"].labels(**labels).inc
        self.sent = families["grpc_server_stream_msg_sent"].labels(**labels).inc
        self._seconds = families["grpc_server_handled_histogram"].labels(**labels).observe  # type: ignore[attr-defined]
        self._handled = handled
        self._labels = labels
        self._ended: dict[grpc.StatusCode, Callable[[], None]] = {}

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call that has ended with `code`."""
        count = self._ended.get(code)
        if count is None:
            count = self._ended[code] = self._handled.labels(**self._labels, grpc_code=code.name).inc
        count()
        self._seconds(seconds)
