"""Random schedules of the whole dispatcher in a world of virtual time: the promises hold in all of them.

A failing schedule prints its seed, what is broken, and the end of its trace;
`python -m tests.simulation SEED` shows all of it again, with `timed` before it one with timetables and quotas.

What notices when a guard is taken out, in how many of the first 300 schedules (seen one by one):

| taken out | schedules |
|---|---|
| a batch is done only when nothing of it is left | 259 |
| what is settled in part leaves a fresh batch | 167 |
| what was not begun is kept when a lease is given up | 86 |
| a lease counts from before its claim, not from after it | 48 |
| an unknown outcome under AT_MOST_ONCE is UNKNOWN | 37 |
| the limit of attempts | 32 |
| Retry-After | 31 |
| no request after the mailing's end | 25 |
| who is to be skipped gets nothing | 16 |
| no request after the lease's time to send | 15 |
| a later pass over the clients looks who is in already | 15 |
| a changed or stopped mailing's leases are given up | 11 |
| what may have been sent is not recorded as not sent | 12 |
| no request after the client's window | 10 |
| release_orphans spares the batches that are known | 10 |
| a reclaimed batch under AT_MOST_ONCE is UNKNOWN | 4 |
| pending outcomes wait for the end of the batch | 4 |
| outcomes are written until the database answers | 4 |
| requests end well before their lease does | 4 |
| no request without a fresh confirmation | 2 |
| a deleted client's messages end | 2 |
| an open breaker lets nothing through | 1 |
| what is for changed clients is taken out of leases | 1 |

With hours, holidays, local starts, spans of lateness and daily quotas, of mailings and of the endpoint, and a clock of
the database that is set in every second schedule, of the first 150:

| taken out | schedules |
|---|---|
| permits are used once | 48 |
| no request before the hours open | 42 |
| a reason of the timetable ends a message EXPIRED | 34 |
| the endpoint's quota | 16 |
| the mailing's quota | 12 |
| a full day is asked about again | 11 |
| no request after the hours or the window close | 10 |
| permits end with their day | 2 |
| a changed mailing's leases are given up | 1 |

Rarer are those whose work others do as well most of the time: `revoked`, the fence in settle. Of
thousands of schedules a handful find a paused mailing that is claimed, a settlement that is
repeated after it gave a batch back, a message put back while
its first batch is held, and a doubtful batch that is given back unheard of.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.schedule import run

CHUNK = 150
FIRST, LAST = map(int, os.environ.get("SIMULATED_SCHEDULES", "0:600").split(":"))
"""The seeds to try. `make simulation` tries more, as .ci/run does."""


@pytest.fixture(autouse=True)
def dead_processes_are_not_mourned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Yield a crashed process is dropped in the middle of its tasks, about which Python complains in vain."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    logging.disable(logging.CRITICAL)
    yield
    gc.collect()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(FIRST, LAST, CHUNK))
def test_the_promises_hold_in_every_schedule(first: int) -> None:
    requests = 0
    for seed in range(first, first + CHUNK):
        report = run(seed)
        assert not report.broken, str(report)
        requests += report.requests
    assert requests > 8 * CHUNK


@pytest.mark.parametrize("first", range(FIRST, LAST, 8 * CHUNK))
def test_timetables_and_quotas_hold_in_every_schedule(first: int) -> None:
    """However the clock is set: nothing leaves outside the hours, too late, on a holiday or beyond a quota."""
    requests = 0
    for seed in range(first, first + CHUNK):
        report = run(seed, timed=True)
        assert not report.broken, str(report)
        requests += report.requests
    assert requests > 5 * CHUNK


@pytest.mark.parametrize("first", [0, 1000])
def test_a_seed_tells_the_same_story_every_time(first: int) -> None:
    for seed in range(first, first + 25):
        timed = seed % 5 == 0
        assert run(seed, timed).trace == run(seed, timed).trace, f"seed {seed}"
