"""Lets prometheus_client read the service's figures at the moment of a scrape."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from server.observability.metrics.families import FAMILIES, Family
from server.observability.metrics.samples import Samples, Value, added

Source = Callable[[], Samples]
"""Says how things stand. Answers at once, from memory."""


class ServiceCollector(Collector):
    """Adds up what its sources say; families of which none has a value are left out."""

    def __init__(self, version: str, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._build: Samples = {"mailing_build_info": {(version, platform.python_version()): 1}}

    def collect(self) -> Iterator[Metric]:
        """Yield every family there is."""
        samples = added([self._build, *(source() for source in self._sources)])
        for name, family in FAMILIES.items():
            if values := samples.get(name):
                yield _metric(family, values.items())

    def describe(self) -> Iterable[Metric]:
        """Yield every family without values, so that the registry finds names that collide."""
        return [_metric(family, ()) for family in FAMILIES.values()]


def _metric(family: Family, values: Iterable[tuple[tuple[str, ...], Value]]) -> Metric:
    name, text, labels = family.name, family.help, family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for at, value in values:
            assert isinstance(value, list)
            histogram.add_metric(at, _buckets(family.bounds, value), value[-1])
        return histogram
    simple = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for at, value in values:
        assert not isinstance(value, list)
        simple.add_metric(at, value)
    return simple


def _buckets(bounds: Sequence[float], value: list[float]) -> list[tuple[str, float]]:
    """Return the counts as Prometheus wants them: each range includes all below it."""
    below = 0.0
    buckets = []
    for bound, count in zip((*map(str, bounds), "+Inf"), value, strict=False):
        below += count
        buckets.append((bound, below))
    return buckets
