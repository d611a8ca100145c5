"""How many CPUs this process may use: those it is allowed to run on, and the quota of its container."""

from __future__ import annotations

import os
from contextlib import suppress
from math import inf
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> float:
    """Return how many CPUs' worth of time this process can have, at least a fraction of one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _quota(cgroup))


def _quota(cgroup: Path) -> float:
    """Return the CPUs that a container's limit leaves, by control groups of version 2 or 1."""
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((cgroup / "cpu" / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        return int(quota) / int(period) if int(quota) > 0 else inf
    return inf
