"""Counts calls in the metric families that gRPC dashboards expect.

`grpc_server_started_total`, `_handled_total`, `_msg_received_total`, `_msg_sent_total` and
`grpc_server_handling_seconds`, with the labels and the ranges that other servers have. A call adds to
plain numbers, and a scrape makes the families of them: five locks a call cost more than its limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

import grpc
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from dispatcher.counters import Histogram
from server.api.handlers import Handler

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of how long calls took, in seconds."""

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_KINDS = {
    (False, False): "UNARY",
    (True, False): "CLIENT_STREAMING",
    (False, True): "SERVER_STREAMING",
    (True, True): "BIDI_STREAMING",
}
"""By whether the request and the response are streams."""


class MethodMetrics:
    """Counts the calls of one method: `started`, `received` and `sent` are called for each call and message."""

    __slots__ = ("begun", "ends", "labels", "messages_in", "messages_out", "seconds")

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.begun = self.messages_in = self.messages_out = 0
        self.ends: Counter[grpc.StatusCode] = Counter()
        self.seconds = Histogram(BOUNDS)

    def started(self) -> None:
        """Count a call that begins."""
        self.begun += 1

    def received(self) -> None:
        """Count a message of the caller."""
        self.messages_in += 1

    def sent(self) -> None:
        """Count a message to the caller."""
        self.messages_out += 1

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call that has ended with `code`."""
        self.ends[code] += 1
        self.seconds.observe(seconds)


class CallMetrics(Collector):
    """The families. One per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._methods: list[MethodMetrics] = []
        registry.register(self)

    def of(self, handler: Handler, method: str) -> MethodMetrics:
        """Return the counters of a method, whose series appear with this."""
        _, service, name = method.split("/", 2)
        kind = _KINDS[handler.request_streaming, handler.response_streaming]
        metrics = MethodMetrics((kind, service, name))
        self._methods.append(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they are now."""
        started = _counter("started", "RPCs started on the server")
        received = _counter("msg_received", "RPC stream messages received on the server")
        sent = _counter("msg_sent", "gRPC stream messages sent by the server")
        handled = _counter("handled", "RPCs completed on the server, regardless of success or failure", "grpc_code")
        text = "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server."
        seconds = HistogramMetricFamily("grpc_server_handling_seconds", text, labels=_LABELS)
        for one in self._methods:
            started.add_metric(one.labels, one.begun)
            received.add_metric(one.labels, one.messages_in)
            sent.add_metric(one.labels, one.messages_out)
            for code, number in one.ends.items():
                handled.add_metric((*one.labels, code.name), number)
            ranges = zip((*map(str, BOUNDS), "+Inf"), accumulate(one.seconds.counts), strict=True)
            seconds.add_metric(one.labels, [*ranges], one.seconds.sum)
        yield from (started, received, sent, handled, seconds)


def _counter(name: str, what: str, *more: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"grpc_server_{name}", f"Total number of {what}.", labels=(*_LABELS, *more))
