"""Asks an admin port, as Prometheus and probes do."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.support.eventually import eventually_sync

ADMIN = re.compile(r"metrics and health are on http://(\S+:\d+)")
"""How a process says in its log where its admin port is."""

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Page(NamedTuple):
    status: int
    content_type: str
    text: str


def get(address: str, path: str, **headers: str) -> Page:
    """Return what a path answers, whatever its status."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with _opener.open(request, timeout=30) as answer:
            return Page(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Page(error.code, error.headers["Content-Type"], error.read().decode())


def scrape(address: str) -> Samples:
    """Return every sample of `/metrics`."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(get(address, "/metrics").text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample."""
    return samples[name, frozenset(labels.items())]


def sampled(address: str, name: str, wanted: float, **labels: str) -> None:
    """Return once a sample has this value."""
    eventually_sync(lambda: value(scrape(address), name, **labels), lambda found: found == wanted)
