"""Reports: the detailed statistics of a mailing, computed from its counters.

Pure functions. Messages are never read, so a report costs the same whatever the size of the
mailing. The latency bins are those of the database's `latency_bin`; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dispatcher.model.states import Reason, Status
from server.domain.mailings import Mailing
from server.domain.receipts import ReceiptCount

LONGEST_COURSE = 2 * 24 * 60
"""Minutes: of a longer course the last part is reported, which bounds what a report reads."""

COARSE_STEP = 2
"""Minutes that one entry of the course stands for when there would be too many of single minutes."""

MOST_ENTRIES = LONGEST_COURSE // COARSE_STEP
"""How many entries a course has at the most."""

_BINS_PER_E = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Counter:
    """How many messages have a status for a reason, and when the first and the last one got it."""

    status: Status
    reason: Reason
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The same for a status, whatever the reason."""

    status: Status
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class LatencyBin:
    """How many successful requests took from `lowest` to `highest` milliseconds, both included."""

    lowest: int
    highest: int
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """What was settled in the step of the course that begins at `begins_at`."""

    begins_at: datetime
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Course:
    """Deliveries and failures over time: the steps in which there were any, in their order.

    At most the last LONGEST_COURSE of them, and at most MOST_ENTRIES.
    """

    step: timedelta = timedelta(minutes=1)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A mailing and its statistics, all of one moment.

    `attempts` has the number of settled messages by their number of requests. Zeros are left out.
    """

    mailing: Mailing
    statuses: tuple[StatusCount, ...]
    reasons: tuple[tuple[Reason, int], ...]
    attempts: tuple[tuple[int, int], ...]
    latencies: tuple[LatencyBin, ...]
    course: Course
    receipts: tuple[ReceiptCount, ...] = ()


def status_counts(counters: Iterable[Counter]) -> tuple[StatusCount, ...]:
    """Return the counters by status, in the order of the statuses."""
    found: dict[Status, StatusCount] = {}
    for one in counters:
        so_far = found.get(one.status)
        found[one.status] = StatusCount(
            one.status,
            one.count + (so_far.count if so_far else 0),
            min(one.first_at, so_far.first_at) if so_far else one.first_at,
            max(one.last_at, so_far.last_at) if so_far else one.last_at,
        )
    return tuple(found[status] for status in sorted(found))


def reason_counts(counters: Iterable[Counter]) -> tuple[tuple[Reason, int], ...]:
    """Return why messages ended undelivered, the most frequent reason first.

    The sum is that of all statuses but PENDING and DELIVERED.
    """
    found: dict[Reason, int] = {}
    for one in counters:
        if one.status not in (Status.PENDING, Status.DELIVERED):
            found[one.reason] = found.get(one.reason, 0) + one.count
    return tuple(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def bin_bounds(number: int) -> tuple[int, int]:
    """Return the lowest and the highest whole milliseconds that `latency_bin` puts into a bin.

    Bin k holds those from exp(k/8)-1 to below exp((k+1)/8)-1. Some of the first bins hold none:
    their highest is then below their lowest.
    """
    return _first_of(number), _first_of(number + 1) - 1


def _first_of(number: int) -> int:
    return math.ceil(math.exp(number / _BINS_PER_E) - 1)


def latency_bins(counts: Mapping[int, int]) -> tuple[LatencyBin, ...]:
    """Return the bins with their bounds, in the order of their numbers."""
    return tuple(LatencyBin(*bin_bounds(number), counts[number]) for number in sorted(counts))


def latency_quantile(bins: Iterable[LatencyBin], share: float) -> timedelta | None:
    """Return the latency that `share` (above 0, up to 1) of the requests do not exceed; None without any.

    It is the latency of the request at that rank (the nearest-rank quantile), taking those of
    a bin as evenly spread over it. The true one lies in the same bin, so the result is off by no
    more than the bin is wide: not at all up to 9 ms, and by less than 13.4% of (it + 1 ms) above.
    """
    known = tuple(bins)
    rank = math.ceil(share * sum(one.count for one in known))
    below = 0
    for one in known:
        if rank <= below + one.count:
            within = (rank - below - 0.5) / one.count
            return timedelta(milliseconds=one.lowest + (one.highest - one.lowest) * within)
        below += one.count
    return None


def course_of(minutes: int, rows: Iterable[tuple[int, int, int]]) -> Course:
    """Return the course of rows (minute since the epoch, delivered, failed) that come in their order."""
    steps = (Step(_EPOCH + timedelta(minutes=key), delivered, failed) for key, delivered, failed in rows)
    return Course(timedelta(minutes=minutes), tuple(steps))
