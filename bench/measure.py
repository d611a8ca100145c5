"""What is read off a running machine: CPU time, memory, clocks, quantiles, and what machine it is.

Processes are read from /proc (Linux), so that measuring costs next to nothing and needs
no agreement of the measured.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    """Print one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def _stat(pid: int) -> list[str]:
    # The name in parentheses may hold blanks; the fields after it are numbers.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def descendants(pid: int) -> Iterator[int]:
    """Yield the ids of all processes below `pid`, parents first."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


def cpu_seconds(pid: int, with_ended_children: bool = False) -> float:
    """Return the user and system time of one process in seconds, 0 when it is gone.

    With ended children, that of its children that have ended is included.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11 : 15 if with_ended_children else 13]) / _TICKS


def is_postgres(pid: int) -> bool:
    """Return whether a process is a Postgres server process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """Return the id of the process that started another. Raise OSError when that is gone."""
    return int(_stat(pid)[1])


def service_pids(pid: int) -> list[int]:
    """Return the service process and its helpers, without Postgres."""
    return [pid, *(child for child in descendants(pid) if not is_postgres(child))]


def postgres_cpu_seconds(postmaster: int) -> float:
    """Return the CPU time of a Postgres server: its postmaster and all children, ended ones included."""
    return cpu_seconds(postmaster, with_ended_children=True) + sum(cpu_seconds(pid) for pid in descendants(postmaster))


def peak_rss_mb(pid: int) -> float:
    """Return the largest resident memory a process ever had, in megabytes (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return 0.0


def rss_mb(pid: int) -> float:
    """Return the resident memory a process has now, in megabytes (10^6 bytes), 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0.0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of `values` do not exceed."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def machine() -> str:
    """Return one line that describes this machine, for the plots."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
