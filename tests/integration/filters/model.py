"""What filters mean, said once more in Python: an oracle that knows no SQL, and clients to try it on.

Among the clients are those whose attributes are nearly numbers, nearly times, or are missing; their messages stand in
rows, in fresh batches and in blocks, and one mailing is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import ge, gt, le, lt
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.states import Status
from server.domain.clients import known_zones
from server.domain.filters import AttributeCondition, ClientFilter, MailingCondition, Op
from server.storage.installation import Installation
from tests.support.ledger import BUCKETS

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TAGS = ("vip", "gold", "", "Ёлка", "a'b", '"q"', "100%")
CODES = ("903", "926", "")
ZONES = ("Europe/Moscow", "W-SU", "Asia/Tokyo", "Japan")
SAME_ZONE = ({"Europe/Moscow", "W-SU"}, {"Asia/Tokyo", "Japan"})
NUMBERS = ("30", "-1.5", "007", "+12", "1e5", "30.", ".5", " 30", "30 ", "1" * 100, "1" * 101, "٣٠", "abc", "")
TIMES = (
    "2026-02-28",
    "2026-02-29",
    "2024-02-29",
    "0000-01-01",
    "2026-13-01",
    "2026-02-28T23:59:59Z",
    "2026-03-01T02:59:59.5+03:00",
    "2026-03-01T00:00:00-23:00",
    "2026-02-28 10:00:00",
    "9999-12-31",
    "9999-12-31T23:59:59-15:00",
    "2026-02-28T24:00:00Z",
)
NAMES = ("age", "since", "city", "missing", "имя")
CITIES = ("Moscow", "Mos", "мос", "Mo%", "", "a\\b")
MAILINGS = (1, 2, 3)
DELETED, NEVER = 4, 5


@dataclass(frozen=True)
class Person:
    """A client as the oracle knows them; `messages` has the status by mailing."""

    id: int
    phone: str
    operator_code: str
    tag: str
    timezone: str
    attributes: Mapping[str, str]
    created_at: datetime
    messages: Mapping[int, Status] = field(default_factory=dict)


def people(count: int, seed: int = 7) -> list[Person]:
    """Return clients, the same ones for the same seed."""
    random = Random(seed)
    return [_person(random, 16 + n) for n in range(count)]


def _person(random: Random, id_: int) -> Person:
    values = {"age": NUMBERS, "since": TIMES, "city": CITIES, "имя": ("x",)}
    attributes = {name: random.choice(some) for name, some in values.items() if random.random() < 0.8}
    messages = {mailing: random.choice(list(Status)) for mailing in (*MAILINGS, DELETED) if random.random() < 0.7}
    return Person(
        id=id_,
        phone=random.choice(("7903", "7926", "44", "1")) + f"{id_:07}",
        operator_code=random.choice(CODES),
        tag=random.choice(TAGS),
        timezone=random.choice(ZONES),
        attributes=attributes,
        created_at=EPOCH + timedelta(hours=random.randrange(48)),
        messages=messages,
    )


def matches(chosen: ClientFilter, who: Person) -> bool:
    """Return whether a client matches a filter; samples are left out."""
    zones = {name for zone in chosen.timezones for name in _same_zone(zone)}
    return (
        (not chosen.tags or who.tag in chosen.tags)
        and (not chosen.operator_codes or who.operator_code in chosen.operator_codes)
        and (not zones or who.timezone in zones)
        and all(who.attributes.get(name) == value for name, value in chosen.attributes.items())
        and (not chosen.client_ids or who.id in chosen.client_ids)
        and all(_attribute(one, who.attributes.get(one.name)) for one in chosen.attribute_conditions)
        and (not chosen.phone_prefixes or who.phone.startswith(chosen.phone_prefixes))
        and (chosen.created_since is None or who.created_at >= chosen.created_since)
        and all(_got(one, who) for one in chosen.only_mailings)
        and not any(_got(one, who) for one in chosen.exclude_mailings)
        and (not chosen.any_of or any(matches(group, who) for group in chosen.any_of))
        and not any(matches(group, who) for group in chosen.none_of)
        and all(matches(group, who) for group in chosen.all_of)
    )


def _same_zone(zone: str) -> set[str]:
    return next((names for names in SAME_ZONE if zone in names), {zone})


def _got(condition: MailingCondition, who: Person) -> bool:
    status = who.messages.get(condition.mailing_id) if condition.mailing_id in MAILINGS else None
    return status in (condition.statuses or (Status.DELIVERED,))


def _attribute(condition: AttributeCondition, value: str | None) -> bool:
    values = condition.values
    match condition.op:
        case Op.IN:
            return value in values
        case Op.NOT_IN:
            return value not in values
        case Op.PREFIX:
            return value is not None and value.startswith(values)
        case Op.NOT_PREFIX:
            return value is None or not value.startswith(values)
        case Op.EXISTS:
            return value is not None
        case Op.MISSING:
            return value is None
    compare: Any = {Op.LESS: lt, Op.LESS_OR_EQUAL: le, Op.GREATER: gt, Op.GREATER_OR_EQUAL: ge}[condition.op]
    found, wanted = _ordered(value), _ordered(values[0])
    return type(found) is type(wanted) and found is not None and bool(compare(found, wanted))


def _ordered(text: str | None) -> Decimal | timedelta | None:
    """Return the number, or the time since 1970, that a text is; None for another text."""
    if text is None:
        return None
    if re.fullmatch(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?", text, re.ASCII):
        return Decimal(text)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2}))?", text, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        return None
    offset = moment.utcoffset()
    if offset is None or abs(offset) >= timedelta(hours=16) or "T24" in text:
        return None
    return moment.replace(tzinfo=None) - datetime(1970, 1, 1) - offset


async def populate(pool: asyncpg.Pool, everybody: list[Person]) -> None:
    """Write the clients and their messages: with a row, in a fresh batch or, ended untried, in a block."""
    await pool.executemany(
        "INSERT INTO clients (bucket, id, phone, operator_code, tag, timezone, attributes, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (p.id % BUCKETS, p.id, p.phone, p.operator_code, p.tag, p.timezone, _json(p.attributes), p.created_at)
            for p in everybody
        ],
    )
    await pool.executemany(
        "INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts, initial_backoff,"
        " max_backoff) VALUES ($1, 'x', now(), 4, 2, 1, 5, '1 s', '1 min')",
        [(mailing,) for mailing in MAILINGS],
    )
    await pool.execute("SELECT setval('mailing_id', 100)")
    for who in everybody:
        for mailing, status in who.messages.items():
            await _write(pool, who, mailing, status)


async def _write(pool: asyncpg.Pool, who: Person, mailing: int, status: Status) -> None:
    key = (who.id % BUCKETS, mailing, who.id)
    untried = who.id % 2 and mailing != DELETED
    if untried and status is Status.PENDING:
        statement = (
            "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, fresh)"
            " VALUES ($1, $2, $3, ARRAY[$3::bigint], now(), true)"
        )
        await pool.execute(statement, *key)
    elif untried and status in (Status.EXPIRED, Status.CANCELLED, Status.SKIPPED):
        statement = (
            "INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)"
            " VALUES ($1, $2, $3, ARRAY[$3::bigint], now(), now(), now(), $4, 0)"
        )
        await pool.execute(statement, *key, status)
    else:
        statement = (
            "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, status, settled_at)"
            " VALUES ($1, $2, $3, now(), now(), $4::smallint, CASE WHEN $4::smallint <> 1 THEN now() END)"
        )
        await pool.execute(statement, *key, status)


def _json(attributes: Mapping[str, str]) -> str:
    return orjson.dumps(dict(attributes)).decode()


INSTALLATION = Installation(BUCKETS, known_zones(ZONES), UUID(int=0))
EVERYBODY = people(150)
