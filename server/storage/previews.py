"""Previews of mailings: the audience, samples, and the windows of the schedule.

Nothing is written. A replica runs one preview at a time, on one connection, so that previews of
large audiences leave the other connections to other calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import asyncpg
import orjson

from dispatcher.model.endpoints import endpoint_name
from dispatcher.model.quotas import DayLimit
from dispatcher.model.rates import MOST_RATE
from dispatcher.model.requests import RequestForm
from dispatcher.model.states import AudienceMode, MailingState, Reason
from dispatcher.model.templates import parse
from dispatcher.model.texts import TextRenderer
from server.domain.clients import Client
from server.domain.errors import Kind, MailingEnded, NotFound, WrongState
from server.domain.filters import filter_from_json
from server.domain.mailings import MailingDefinition, ended_already
from server.domain.previews import (
    MAX_WINDOWS,
    Audience,
    DayBudget,
    FrequencyCap,
    Group,
    Pace,
    Preview,
    Waiting,
    Window,
    audience_of,
    daily_spans,
    samples_of,
    schedule,
    spans,
    strictest,
    without_texts,
)
from server.domain.principals import shown_attributes, source
from server.domain.turns import Turns
from server.storage.client_rows import client_of
from server.storage.clients import end_of_sample
from server.storage.database import Database
from server.storage.day_quotas import used_today
from server.storage.filters import audience_of_filter, bind, drawn, filter_hash
from server.storage.mailing_rows import mailing_of
from server.storage.mailings import check_calendar
from server.storage.queries import load_queries
from server.storage.segment_filters import resolved

_SQL = load_queries("previews.sql")
_MAILINGS = load_queries("mailings.sql")
_DATABASE = load_queries("database.sql")

_Statements = Callable[..., tuple[Any, ...]]
"""Return the arguments for a statement of this name, given the parameters that are its own."""

PREVIEW_TIMEOUT = 60.0
"""Seconds that one statement of a preview may take, instead of the usual timeout."""

NO_LIMITS: Mapping[str, DayLimit] = MappingProxyType({})
NO_FORMS: Mapping[str, RequestForm] = MappingProxyType({})

MAX_LOOKED_AT = 1000
"""Clients that are looked at for samples whose text may be sent."""

PREVIEWABLE = frozenset({MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED})


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is previewed: a definition, its `start` (not before `now`), and its id if it has begun.

    `holidays` are the days of its calendar, `default` the window of clients without one.
    """

    definition: MailingDefinition
    start: datetime
    mailing_id: int | None
    holidays: Sequence[date]
    default: tuple[time | None, timedelta | None]
    now: datetime


class PreviewStore:
    """Previews mailings.

    `cap` is the service's frequency cap; `rates` are the rate limits of endpoints in messages a second,
    by name, for those that have one, `day_limits` their daily quotas, `forms` their requests where they are
    described. A text may take up to `max_sms_segments` SMS.
    """

    def __init__(
        self,
        database: Database,
        cap: FrequencyCap,
        rates: Mapping[str, float],
        max_sms_segments: int,
        forms: Mapping[str, RequestForm] = NO_FORMS,
        day_limits: Mapping[str, DayLimit] = NO_LIMITS,
    ) -> None:
        self._day_limits = day_limits
        self._forms = forms
        self._database = database
        self._cap = cap
        self._rates = rates
        self._max_segments = max_sms_segments
        self._turns = Turns("previews", 1, 1, waiting=256, waiting_share=32)

    async def preview(self, mailing: MailingDefinition | int, samples: int) -> Preview:
        """Return what a mailing, or the stored one with this id, would do if it continued now.

        Raise NotFound, WrongState and MailingEnded for a stored mailing that sends nothing any more,
        InvalidFields for an end that has passed, DatabaseUnavailable, and TooManyWaiting.
        """
        async with (
            self._turns.turn(source(), PREVIEW_TIMEOUT),
            self._database.reads.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            subject = await _subject(connection, mailing)
            await connection.execute(*_DATABASE["plan_for_arguments"].bind())
            statements = await self._statements(connection, subject)
            statement = statements("preview_groups", **_lateness(subject), **_hours(subject))
            groups = await connection.fetch(*statement, timeout=PREVIEW_TIMEOUT)
            render = self._renderer(subject.definition)
            unsuited = await _unsuited_texts(connection, statements, render)
            audience = audience_of(without_texts(map(_group_of, groups), unsuited))
            wanted = min(samples, audience.size)
            looked_at = min(wanted + unsuited.total(), MAX_LOOKED_AT) if wanted else 0
            first = await _first_clients(connection, statements, audience.groups, looked_at)
            rate = strictest(
                subject.definition.max_rate, self._rates.get(endpoint_name(subject.definition.endpoint), 0.0)
            )
            budgets = await self._budgets(connection, subject)
            sendable, finish_at = await _sendable(connection, audience, subject, rate, budgets)
        return Preview(audience, samples_of(render, first, wanted), sendable, finish_at)

    async def _budgets(self, connection: asyncpg.Connection, subject: _Subject) -> list[DayBudget]:
        """Return what the quotas of the mailing and of its endpoint leave, from its start on."""
        name = endpoint_name(subject.definition.endpoint)
        limits = {
            f"mailing/{subject.mailing_id or 0}": subject.definition.day_limit,
            f"endpoint/{name}": self._day_limits.get(name),
        }
        given = {key: limit for key, limit in limits.items() if limit is not None}
        used = await used_today(connection, given)
        today = {key: DayBudget(limit, subject.now, used[key]) for key, limit in given.items()}
        for budget in today.values():
            budget.left(subject.start)
        return list(today.values())

    def _renderer(self, mailing: MailingDefinition) -> TextRenderer:
        form = self._forms.get(endpoint_name(mailing.endpoint))
        return TextRenderer(parse(mailing.text), self._max_segments, form, mailing.title)

    async def _statements(self, connection: asyncpg.Connection, subject: _Subject) -> _Statements:
        """Return what binds the statements about candidates, with the parameters that all of them share."""
        chosen = subject.definition.filter
        sample = await _sample(connection, subject) if chosen.sample else {}
        return partial(
            _bound,
            chosen=chosen,
            **sample,
            mailing_id=subject.mailing_id or 0,
            fixed=subject.definition.audience_mode is AudienceMode.SNAPSHOT,
            capped=self._cap.messages > 0 and not subject.definition.important,
            cap=self._cap.messages,
            capped_since=subject.start - self._cap.period,
            default_start=subject.default[0],
            default_length=subject.default[1],
        )


def _bound(name: str, **arguments: Any) -> tuple[Any, ...]:
    return bind(_SQL[name], **arguments)


async def _sample(connection: asyncpg.Connection, subject: _Subject) -> dict[str, Any]:
    """Return the sample that was drawn for the mailing or, if none was, that would be drawn now."""
    chosen, mailing_id = subject.definition.filter, subject.mailing_id
    hash_ = filter_hash(audience_of_filter(chosen))
    if mailing_id and await connection.fetchval(*_SQL["preview_is_drawn"].bind(mailing_id=mailing_id, hash_=hash_)):
        return {"besides": drawn(mailing_id, hash_)}
    return {"bound": await end_of_sample(connection, chosen)}


async def _subject(connection: asyncpg.Connection, mailing: MailingDefinition | int) -> _Subject:
    mailing_id = mailing if isinstance(mailing, int) else None
    row = await connection.fetchrow(*_SQL["preview_moment"].bind(mailing_id=mailing_id))
    now: datetime = row["read_at"]
    default = row["default_window_start"], row["default_window_length"]
    if not isinstance(mailing, int):
        if mailing.end_time and mailing.end_time <= now:
            raise ended_already()
        await check_calendar(connection, mailing.holidays)
        _, whole = await resolved(connection, mailing.filter, "mailing.filter")
        start, days = max(mailing.start_time or now, now), await _holidays(connection, mailing)
        return _Subject(replace(mailing, filter=whole), start, None, days, default, now)
    if row["id"] is None:
        raise NotFound(Kind.MAILING, mailing)
    stored = mailing_of(row)
    if stored.state not in PREVIEWABLE:
        raise WrongState("previewed", stored.state, PREVIEWABLE)
    definition = stored.definition
    if row["audience"] is not None:
        definition = replace(definition, filter=filter_from_json(orjson.loads(row["audience"])))
    if definition.end_time and definition.end_time <= now:
        raise MailingEnded
    begun = await _has_begun(connection, stored.id, stored.state)
    start, days = max(definition.start_time or now, now), await _holidays(connection, definition)
    return _Subject(definition, start, stored.id if begun else None, days, default, now)


async def _holidays(connection: asyncpg.Connection, mailing: MailingDefinition) -> Sequence[date]:
    return await connection.fetchval(*_SQL["preview_holidays"].bind(name=mailing.holidays)) or ()


def _hours(subject: _Subject) -> dict[str, object]:
    """Return the mailing's own hours as parameters."""
    hours = [one.as_json() for one in subject.definition.sending_hours]
    return {"hours": orjson.dumps(hours).decode(), "holidays": subject.holidays}


def _lateness(subject: _Subject) -> dict[str, object]:
    """Return the parameters by which it is decided who is too early or too late."""
    mailing = subject.definition
    return {
        "start": subject.start,
        "end": mailing.end_time,
        "timed": bool(mailing.sending_hours or mailing.holidays or mailing.local_start or mailing.skip_after),
        "local_start": mailing.local_start,
        "skip_after": mailing.skip_after,
        "due_since": mailing.start_time or subject.start,
    }


async def _has_begun(connection: asyncpg.Connection, mailing_id: int, state: MailingState) -> bool:
    """Return whether clients may have a message; one that is paused may have been held before its start."""
    if state is not MailingState.PAUSED:
        return state is not MailingState.SCHEDULED
    return bool(await connection.fetchval(*_MAILINGS["has_begun"].bind(mailing_id=mailing_id)))


async def _unsuited_texts(
    connection: asyncpg.Connection, statements: _Statements, render: TextRenderer
) -> Counter[tuple[Window, Reason, Reason]]:
    """Count the clients whose text is empty or too long: by window, why they are left out anyway, and that reason.

    Reads every client of the audience, unless the text suits everybody.
    """
    found: Counter[tuple[Window, Reason, Reason]] = Counter()
    if render.suits_everybody:
        return found
    async for row in connection.cursor(*statements("preview_texts"), prefetch=500, timeout=PREVIEW_TIMEOUT):
        values = (row["phone"], row["operator_code"], row["tag"], row["timezone"], orjson.loads(row["attributes"]))
        if reason := render(*values).reason:
            found[_window_of(row), Reason.FREQUENCY_CAP if row["capped"] else Reason.NONE, reason] += 1
    return found


async def _first_clients(
    connection: asyncpg.Connection, statements: _Statements, groups: Sequence[Group], count: int
) -> list[tuple[Client, datetime]]:
    if not count:
        return []
    await connection.execute(*_SQL["preview_in_order"].bind())
    zones, starts, lengths = zip(*(group.window for group in groups), strict=True)
    statement = statements(
        "preview_samples",
        timezones_of=zones,
        starts_of=starts,
        lengths_of=lengths,
        opens_of=[group.opens_at for group in groups],
        limit=count,
    )
    rows = await connection.fetch(*statement, timeout=PREVIEW_TIMEOUT)
    return [(_shown(client_of(row)), row["due_at"]) for row in rows]


def _shown(client: Client) -> Client:
    """Return a client as the caller may see them."""
    about = client.definition
    return replace(client, definition=replace(about, attributes=shown_attributes(about.attributes)))


async def _sendable(
    connection: asyncpg.Connection, audience: Audience, subject: _Subject, rate: float, budgets: Sequence[DayBudget]
) -> tuple[int, datetime | None]:
    """Return how many messages can be sent before the end, and when the last one is if these are all."""
    start, end = subject.start, subject.definition.end_time
    if not audience.groups:
        return 0, None
    if not rate and not budgets:
        return audience.size, max(group.opens_at for group in audience.groups)
    pace, left, last = Pace(start, rate or MOST_RATE), list(audience.groups), -1
    for since, until in daily_spans(budgets, start, end) if budgets else spans(start, end):
        most = min((budget.left(since) for budget in budgets), default=None)
        if most == 0:
            continue
        if len(left) * max(1, (until - since) / timedelta(days=1)) > MAX_WINDOWS:
            break
        waiting = await _waiting(connection, subject, left, pace, since, until)
        outcome = await asyncio.to_thread(schedule, waiting, most)
        last = max(last, outcome.last)
        for budget in budgets:
            budget.use(sum(group.count for group in left) - sum(outcome.left))
        left = [replace(group, count=n) for group, n in zip(left, outcome.left, strict=True) if n]
        if not left:
            return audience.size, pace.moment(last)
    unsent = sum(group.count for group in left)
    # Without an end all are sent, however late, unless they are too late.
    endless = end is None and subject.definition.skip_after is None
    return audience.size if endless else audience.size - unsent, None


async def _waiting(
    connection: asyncpg.Connection,
    subject: _Subject,
    groups: Sequence[Group],
    pace: Pace,
    since: datetime,
    until: datetime,
) -> list[Waiting]:
    zones, starts, lengths = zip(*(group.window for group in groups), strict=True)
    statement = _SQL["preview_windows"].bind(
        timezones=zones,
        starts=starts,
        lengths=lengths,
        opens=[group.opens_at for group in groups],
        lates=[group.late_at for group in groups],
        since=since,
        until=until,
        **_hours(subject),
    )
    rows = await connection.fetch(*statement, timeout=PREVIEW_TIMEOUT)
    waiting = [Waiting(group.count, []) for group in groups]
    for who, opens_at, closes_at in rows:
        waiting[who - 1].windows.append(pace.slots(opens_at, closes_at))
    return waiting


def _window_of(row: asyncpg.Record) -> Window:
    return row["timezone"], row["window_start"], row["window_length"]


def _group_of(row: asyncpg.Record) -> Group:
    late = Reason(row["late"])
    return Group(_window_of(row), Reason(row["reason"]), row["n"], row["opens_at"], late, row["late_at"])
