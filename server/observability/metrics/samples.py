"""Values of metrics as plain data, to be added up and to travel between processes.

A figure is a number or, for a histogram, the counts of its ranges followed by the sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from dispatcher.counters import Histogram
from server.observability.metrics.families import FAMILIES

Value = float | list[float]
Samples = dict[str, dict[tuple[str, ...], Value]]
"""Values by the name of their family, and by the values of its labels."""


def of_histogram(histogram: Histogram) -> Value:
    """Return a histogram as a value."""
    return [*histogram.counts, histogram.sum]


def add(total: Samples, samples: Samples) -> None:
    """Add `samples` to `total`, in place."""
    for name, values in samples.items():
        mine = total.setdefault(name, {})
        for labels, value in values.items():
            before = mine.get(labels)
            if before is None:
                mine[labels] = value
            elif isinstance(before, list) and isinstance(value, list):
                mine[labels] = [a + b for a, b in zip(before, value, strict=True)]
            elif not isinstance(before, list) and not isinstance(value, list):
                mine[labels] = before + value


def added(all_figures: Iterable[Samples]) -> Samples:
    """Return the sum of several figures."""
    total: Samples = {}
    for samples in all_figures:
        add(total, samples)
    return total


def counters(samples: Samples) -> Samples:
    """Return those that only grow, without the gauges."""
    return {name: values for name, values in samples.items() if FAMILIES[name].kind != "gauge"}


def encode(samples: Samples) -> bytes:
    """Return figures as one line."""
    return orjson.dumps({name: list(values.items()) for name, values in samples.items()}) + b"\n"


def decode(line: bytes) -> Samples:
    """Return the figures of a line; families that are not known are left out. Raise ValueError."""
    read: dict[str, Any] = orjson.loads(line)
    return {
        name: {tuple(labels): value for labels, value in values} for name, values in read.items() if name in FAMILIES
    }
