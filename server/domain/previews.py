"""Previews: who is excluded and why, what the first clients would read, and how many messages can
be sent before the end.

The schedule is a model. A mailing that is limited to `rate` messages a second has a slot every
1/rate seconds from its start on, and a slot serves one client whose receive window is open. Of
those, the client with the least time left before the end goes first. Where no window opens twice
before the end that is earliest deadline first, and no schedule sends more; where windows open
again it is a feasible schedule, and hardly any sends more. Failed attempts are not modelled.
Everything here is pure arithmetic.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from dispatcher.model.quotas import DayLimit
from dispatcher.model.sms import SmsLength, sms_length
from dispatcher.model.states import Reason
from dispatcher.model.texts import TextRenderer
from server.domain.clients import Client
from server.domain.validation import Violations

DEFAULT_SAMPLES = 3
MAX_SAMPLES = 50

MAX_SAMPLE_CHARACTERS = 500_000
"""Maximum characters of all samples; the first one is always included."""

LOOK_AHEAD = timedelta(days=365)
"""How far a schedule is computed, from the start on."""

MAX_WINDOWS = 500_000
"""Maximum windows of one schedule in memory at once."""

_BEFORE_WINDOWS = frozenset({Reason.OPTED_OUT, Reason.NO_ADDRESS, Reason.EMPTY_TEXT, Reason.TOO_LONG})
"""Why clients are left out, whatever their window."""

_FIRST_SPAN = timedelta(days=2)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """The maximum of messages a client gets within `period`; 0 messages means no cap."""

    messages: int = 0
    period: timedelta = timedelta(hours=24)


Window = tuple[object, ...]
"""What identifies a receive window for the store."""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` clients with the same receive window.

    `window` identifies the group for the store; `reason` is why they are excluded, NONE if they are
    not. `opens_at` is the first moment at which they may be sent to, `late` why they cannot be before the
    end, and `late_at` when it is too late for them, None for never.
    """

    window: Window
    reason: Reason
    count: int
    opens_at: datetime
    late: Reason = Reason.NONE
    late_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """The matching clients: those to send to, and how many are excluded by reason."""

    groups: tuple[Group, ...] = ()
    excluded: dict[Reason, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many clients can receive the mailing."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True, slots=True)
class Sample:
    """The text for one client, who gets it at `due_at` at the earliest."""

    client_id: int
    phone: str
    text: str
    length: SmsLength
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    """What a mailing would do. `finish_at` is None unless the whole audience can be reached before the end."""

    audience: Audience
    samples: tuple[Sample, ...]
    sendable: int
    finish_at: datetime | None


Slots = range
"""Successive slots of a schedule, counted from its start."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """`count` clients who can be served in any of `windows`, which are in order and disjoint."""

    count: int
    windows: list[Slots]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a schedule: how many of each group are left, and the last slot used (-1: none)."""

    left: list[int]
    last: int


def sample_count(value: int, violations: Violations) -> int:
    """Return the number of samples: the default for 0, within the limit; report a negative number."""
    if value < 0:
        violations.add("samples", "must not be negative")
    return min(value, MAX_SAMPLES) if value > 0 else DEFAULT_SAMPLES


def audience_of(groups: Iterable[Group]) -> Audience:
    """Return the audience: opt-outs and texts go before an opening that comes too late, that before the cap."""
    sent: list[Group] = []
    excluded: dict[Reason, int] = {}
    for group in groups:
        reason = group.reason
        if reason not in _BEFORE_WINDOWS:
            reason = group.late or reason
        if reason is Reason.NONE:
            sent.append(group)
        else:
            excluded[reason] = excluded.get(reason, 0) + group.count
    return Audience(tuple(sent), dict(sorted(excluded.items())))


def without_texts(groups: Iterable[Group], unsuited: Mapping[tuple[Window, Reason, Reason], int]) -> list[Group]:
    """Return the groups with the clients apart whose text cannot be sent.

    `unsuited` counts these by window, by the reason why they are left out anyway, and by that of the text.
    """
    apart: list[Group] = []
    alike = dict[Window, Group]()
    for group in groups:
        alike[group.window] = group
        bad = sum(n for (window, reason, _), n in unsuited.items() if (window, reason) == (group.window, group.reason))
        if group.count > bad:
            apart.append(replace(group, count=group.count - bad))
    left_out = ((window, text, n) for (window, _, text), n in unsuited.items() if window in alike)
    return apart + [replace(alike[window], reason=text, count=n) for window, text, n in left_out]


def samples_of(render: TextRenderer, clients: Iterable[tuple[Client, datetime]], most: int) -> tuple[Sample, ...]:
    """Return a sample for each of the first `most` clients whose text may be sent, with the moment beside them."""
    samples: list[Sample] = []
    characters = 0
    for client, due_at in clients:
        about = client.definition
        text, reason, _ = render(about.phone, about.operator_code, about.tag, about.timezone, about.attributes)
        if reason:
            continue
        characters += len(text)
        if len(samples) == most:
            break
        if samples and characters > MAX_SAMPLE_CHARACTERS:
            break
        samples.append(Sample(client.id, about.phone, text, sms_length(text), due_at))
    return tuple(samples)


def strictest(*rates: float) -> float:
    """Return the lowest of several limits in messages a second; 0 is none."""
    return min((rate for rate in rates if rate > 0), default=0.0)


def spans(start: datetime, end: datetime | None) -> Iterable[tuple[datetime, datetime]]:
    """Yield successive spans of a schedule, each twice as long as the one before."""
    last = start + LOOK_AHEAD if end is None else min(end, start + LOOK_AHEAD)
    since, length = start, _FIRST_SPAN
    while since < last:
        until = last if last - since <= length else since + length
        yield since, until
        since, length = until, length * 2


class DayBudget:
    """What a daily quota leaves of each day, from `start` on; `used` of the first one is gone."""

    def __init__(self, limit: DayLimit, start: datetime, used: int) -> None:
        self._limit = limit
        self._zone = ZoneInfo(limit.timezone)
        self._day = start.astimezone(self._zone).date()
        self._left = max(0, limit.most - used)

    def left(self, moment: datetime) -> int:
        """Return what is left of the day of a moment, which is not before the last one asked about."""
        if (day := moment.astimezone(self._zone).date()) != self._day:
            self._day, self._left = day, self._limit.most
        return self._left

    def use(self, messages: int) -> None:
        """Count messages of the present day."""
        self._left -= messages

    def next_day(self, moment: datetime) -> datetime:
        """Return when the day after that of a moment begins: the first time that it is that day there."""
        day = moment.astimezone(self._zone).date() + timedelta(days=1)
        # Of a midnight that comes twice the first one, of one that is skipped when the clock goes on.
        moments = (datetime.combine(day, time(), self._zone).replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        return min(one for one in moments if one.astimezone(self._zone).date() == day)


def daily_spans(
    budgets: Sequence[DayBudget], start: datetime, end: datetime | None
) -> Iterable[tuple[datetime, datetime]]:
    """Yield the spans of a schedule in which no day of any budget ends."""
    last = start + LOOK_AHEAD if end is None else min(end, start + LOOK_AHEAD)
    since = start
    while since < last:
        until = min(last, *(budget.next_day(since) for budget in budgets))
        yield since, until
        since = until


class Pace:
    """The slots of a mailing that sends at `rate` (positive) from `start` on.

    They are at whole microseconds, as all moments are: of three in a second the third is not a
    hair before the end of it because a third is no binary fraction.
    """

    def __init__(self, start: datetime, rate: float) -> None:
        self._start = start
        exact = Fraction(rate)
        self._up, self._down = exact.numerator, exact.denominator * 1_000_000

    def slots(self, since: datetime, until: datetime) -> Slots:
        """Return the slots at or after `since` and before `until`."""
        return range(self._first(since), self._first(until))

    def moment(self, slot: int) -> datetime:
        """Return when a slot is."""
        return self._start + (2 * slot * self._down + self._up) // (2 * self._up) * _MICROSECOND

    def _first(self, moment: datetime) -> int:
        """Return the first slot that, rounded to microseconds, is not before the moment."""
        since = (moment - self._start) // _MICROSECOND
        return max(0, -((1 - 2 * since) * self._up // (2 * self._down)))


def schedule(waiting: Sequence[Waiting], most: int | None = None) -> Outcome:
    """Return the schedule of the model above, of at most so many messages.

    Takes time in proportion to the number of windows, whatever the number of clients.
    """
    openings = _openings(waiting)
    left = [one.count for one in waiting]
    ready: list[tuple[int, int, int]] = []  # the deadline, the end of the window, whose it is
    slot, at, last = 0, 0, -1
    room = sum(left) if most is None else most
    while room > 0 and (ready or at < len(openings)):
        if not ready:
            slot = max(slot, openings[at][0])
        while at < len(openings) and openings[at][0] <= slot:
            heapq.heappush(ready, openings[at][1:])
            at += 1
        _, closes, who = ready[0]
        until = min(closes, openings[at][0]) if at < len(openings) else closes
        served = min(left[who], until - slot, room)
        if served > 0:
            left[who] -= served
            room -= served
            slot += served
            last = slot - 1
        if not left[who] or closes <= slot:
            heapq.heappop(ready)
    return Outcome(left, last)


def _openings(waiting: Sequence[Waiting]) -> list[tuple[int, int, int, int]]:
    """Return every window as when it opens, its deadline, when it closes, and whose it is; in order.

    The deadline of a window is where it would close if all of the later ones were joined to it.
    """
    openings = []
    for who, one in enumerate(waiting):
        later = 0
        for window in reversed(one.windows):
            if window:
                openings.append((window.start, window.stop + later, window.stop, who))
                later += window.stop - window.start  # len() has its limits
    openings.sort()
    return openings
