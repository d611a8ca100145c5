"""What an attacked service is measured by: its memory, and the calls of others."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from tests.faults.conftest import Service

MIB = 2**20


def memory(service: Service) -> int:
    """Return the resident memory of the service's first process, in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{service.pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def slowest(service: Service, calls: int = 200) -> float:
    """Return the 99th percentile of the time that a caller's unary calls take, in seconds."""
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        assert service.client.get_mailing(1).id == 1
        took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[98]


def attacked(service: Service, rounds: int = 3) -> float:
    """Return the best of several `slowest`, in seconds: others run beside it, an attack is in all of them."""
    return min(slowest(service, 100) for _ in range(rounds))
