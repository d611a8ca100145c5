"""Counts calls in the metric families that gRPC dashboards expect.

The families are those of py-grpc-prometheus, whose own interceptor does not serve asyncio:
`grpc_server_started_total`, `_handled_total`, `_msg_received_total`, `_msg_sent_total` and
`grpc_server_handling_seconds`. A call adds to plain numbers, and a scrape fills the families with
them: five locks a call cost more than its limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TypeVar

import grpc
import prometheus_client
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from py_grpc_prometheus import grpc_utils, server_metrics

from dispatcher.counters import Histogram
from server.api.handlers import Handler

BOUNDS = prometheus_client.Histogram.DEFAULT_BUCKETS[:-1]
"""Upper bounds of how long calls took, in seconds; the last, infinity, goes without saying."""

Family = TypeVar("Family", CounterMetricFamily, HistogramMetricFamily)

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


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
        self._defined = server_metrics.init_metrics(CollectorRegistry())
        self._handled = server_metrics.get_grpc_server_handled_counter(False, CollectorRegistry())
        registry.register(self)

    def of(self, handler: Handler, method: str) -> MethodMetrics:
        """Return the counters of a method, whose series appear with this."""
        _, service, name = method.split("/", 2)
        kind = grpc_utils.get_method_type(handler.request_streaming, handler.response_streaming)
        metrics = MethodMetrics((kind, service, name))
        self._methods.append(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they are now."""
        started = _empty(CounterMetricFamily, self._defined["grpc_server_started_counter"])
        received = _empty(CounterMetricFamily, self._defined["grpc_server_stream_msg_received"])
        sent = _empty(CounterMetricFamily, self._defined["grpc_server_stream_msg_sent"])
        handled = _empty(CounterMetricFamily, self._handled, "grpc_code")
        seconds = _empty(HistogramMetricFamily, self._defined["grpc_server_handled_histogram"])
        for one in self._methods:
            started.add_metric(one.labels, one.begun)
            received.add_metric(one.labels, one.messages_in)
            sent.add_metric(one.labels, one.messages_out)
            for code, number in one.ends.items():
                handled.add_metric((*one.labels, code.name), number)
            ranges = zip((*map(str, BOUNDS), "+Inf"), accumulate(one.seconds.counts), strict=True)
            seconds.add_metric(one.labels, [*ranges], one.seconds.sum)
        yield from (started, received, sent, handled, seconds)


def _empty(kind: type[Family], defined: MetricWrapperBase, *more: str) -> Family:
    """Return a family, without a sample, of the name and the text that another has."""
    (known,) = defined.describe()
    return kind(known.name, known.documentation, labels=(*_LABELS, *more))
