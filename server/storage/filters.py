"""Filters as conditions of SQL: what the arrays of a statement cannot say becomes text, made here from the tree.

The text has only shapes of this module; every value of a caller is an entry of one array, `$literals`. A
condition is never NULL, so that it can be negated. What it asks of another table is a look-up by the key for each
client, so a statement reads no more than it reads of clients. Texts depend on the shape of a filter alone:
statements of one shape are prepared once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import asyncpg
import orjson

from dispatcher.model.mailings import AudienceFilter
from dispatcher.model.states import Status
from server.domain.filters import (
    ORDERS,
    AttributeCondition,
    ClientFilter,
    MailingCondition,
    Op,
    Sample,
    filter_from_json,
    is_number,
)
from server.domain.zone_aliases import every_name_of
from server.storage.queries import Query, load_queries

_SQL = load_queries("database.sql")

PLAIN = ("tags", "operator_codes", "timezones", "attributes", "client_ids")
"""The fields that are parameters of statements, where they stand in the outermost filter."""

_UNTRIED = frozenset({Status.PENDING, Status.EXPIRED, Status.CANCELLED, Status.SKIPPED})
"""The statuses of messages that may have no row."""

_EXISTS = "EXISTS (SELECT 1 FROM mailings g WHERE g.id = {} AND g.messages_removed_at IS NULL)"
_ROW = "SELECT m.status FROM messages m WHERE m.bucket = c.bucket AND m.mailing_id = {0} AND m.client_id = c.id LIMIT 1"
_MESSAGE = f"({_ROW})"
_UNWRITTEN = (
    "SELECT u.status FROM unwritten u WHERE u.bucket = c.bucket AND u.mailing_id = {0}"
    " AND u.lowest <= c.id AND u.highest >= c.id AND c.id = ANY (u.client_ids) LIMIT 1"
)
_ANY_MESSAGE = f"(SELECT s.status FROM (({_ROW}) UNION ALL ({_UNWRITTEN})) s LIMIT 1)"  # noqa: S608 - of constants
_DRAWN = "c.id IN (SELECT i.id FROM mailing_samples s CROSS JOIN unnest(s.client_ids) AS i(id) WHERE {})"
"""What is asked of other tables: whether a mailing and its messages are still kept, the client's message of a mailing
that has a row, one that may have none, and whether they are in a drawn sample."""


class Condition(NamedTuple):
    """A condition on a client `c`, and the entries of `$literals` that it refers to."""

    sql: str
    literals: list[str]

    def bind(self, query: Query, **arguments: Any) -> tuple[Any, ...]:
        """Return the arguments of a statement with this condition put in; see `Query.bind`."""
        narrowed = query.narrowed(self.sql)
        return narrowed.bind(**arguments, **({"literals": self.literals} if "literals" in narrowed.names else {}))

    def together(self, sql: str) -> Condition:
        """Return this condition and another one without literals."""
        return Condition(f"{self.sql} AND {sql}", self.literals)

    def positional(self) -> str:
        """Return the text with `$1` for the literals."""
        return self.sql.replace("$literals", "$1")


class Bound(NamedTuple):
    """Where a sample ends: its seed, and the rank and the id of its last client."""

    seed: int
    rank: int
    client_id: int


EVERYBODY, NOBODY = Condition("true", []), Condition("false", [])


def plain_arguments(chosen: ClientFilter | AudienceFilter) -> dict[str, Any]:
    """Return the plain fields of a filter as five parameters of a statement; NULL matches everybody.

    A zone stands for all names of its place.
    """
    return {
        "tags": chosen.tags or None,
        "operator_codes": chosen.operator_codes or None,
        "timezones": every_name_of(chosen.timezones) if chosen.timezones else None,
        "attributes": orjson.dumps(dict(chosen.attributes)).decode() if chosen.attributes else None,
        "chosen_ids": chosen.client_ids or None,
    }


def audience_of(text: str) -> AudienceFilter:
    """Return the filter of its stored JSON as the engine passes it on."""
    return _audience(orjson.loads(text))


def audience_of_filter(chosen: ClientFilter) -> AudienceFilter:
    """Return the filter as the engine passes it on."""
    return _audience(chosen.as_json())


def _audience(stored: dict[str, Any]) -> AudienceFilter:
    plain = {name: stored.pop(name) for name in PLAIN if name in stored}
    further = orjson.dumps(stored, option=orjson.OPT_SORT_KEYS).decode() if stored else ""
    return AudienceFilter(**plain, further=further)


def condition_of(audience: AudienceFilter) -> Condition | None:
    """Return what a filter asks beside its plain fields and its sample, None if that is nothing."""
    return _compiled(audience.further, None)


def sample_of(audience: AudienceFilter) -> Sample | None:
    """Return the sample that a filter takes."""
    stored = orjson.loads(audience.further).get("sample") if audience.further else None
    return Sample(**stored) if stored else None


def filter_hash(audience: AudienceFilter) -> int:
    """Return a number of 63 bits that tells a filter from others."""
    text = orjson.dumps(audience, option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def drawn(mailing_id: int, hash_: int, bucket: int | None = None) -> str:
    """Return the condition that the client is in the sample that was drawn for a mailing with this filter."""
    where = f"s.mailing_id = {mailing_id:d} AND s.filter_hash = {hash_:d}"
    return _DRAWN.format(where if bucket is None else f"{where} AND s.bucket = {bucket:d}")


def bind(
    query: Query, chosen: ClientFilter, bound: Bound | None = None, besides: str = "", **arguments: Any
) -> tuple[Any, ...]:
    """Return the arguments of a statement that takes a filter, and a condition without literals; see `Query.bind`.

    Of a sample it takes those who rank up to `bound`, everybody without one.
    """
    plain = {name: value for name, value in plain_arguments(chosen).items() if name in query.names}
    arguments = {**plain, **arguments}
    condition = _compiled(audience_of_filter(chosen).further, bound)
    if besides:
        condition = (condition or EVERYBODY).together(besides)
    return query.bind(**arguments) if condition is None else condition.bind(query, **arguments)


@asynccontextmanager
async def planned(connection: asyncpg.Connection, chosen: ClientFilter) -> AsyncIterator[None]:
    """Plan statements with a filter for their arguments, within a transaction, where it has further conditions.

    A generic plan takes its lists apart for every client, and searches them from the start.
    """
    if condition_of(audience_of_filter(chosen)) is None:
        yield
        return
    async with connection.transaction():
        await connection.execute(*_SQL["plan_for_arguments"].bind())
        yield


@lru_cache(maxsize=256)
def _compiled(further: str, bound: Bound | None) -> Condition | None:
    compiler = _Compiler()
    terms = compiler.terms(filter_from_json(orjson.loads(further))) if further else []
    if bound:
        terms.append(compiler.sampled(bound))
    # Within CASE the planner expects half of the clients to match, and reads them in their order until a page is full;
    # it would read and sort all of them for a condition that it takes for rare.
    sql = f"CASE WHEN {' AND '.join(terms)} THEN true ELSE false END"
    return Condition(sql, compiler.literals) if terms else None


class _Compiler:
    """Makes the text of one filter, and collects its literals."""

    def __init__(self) -> None:
        self.literals: list[str] = []

    def terms(self, chosen: ClientFilter) -> list[str]:
        """Return the conditions that must all hold, the plain fields among them."""
        return [
            *self._plain(chosen),
            *map(self._attribute, chosen.attribute_conditions),
            *([self._prefix("c.phone", chosen.phone_prefixes)] if chosen.phone_prefixes else []),
            *([self._since(chosen)] if chosen.created_since else []),
            *map(self._mailing, chosen.only_mailings),
            *(f"NOT {self._mailing(one)}" for one in chosen.exclude_mailings),
            *map(self._group, chosen.all_of),
            *([_either(map(self._group, chosen.any_of))] if chosen.any_of else []),
            *(f"NOT {self._group(one)}" for one in chosen.none_of),
        ]

    def sampled(self, bound: Bound) -> str:
        """Return that the client ranks up to the last one of a sample."""
        seed, rank, last = (f"{self._one(str(value))}::bigint" for value in bound)
        return f"(hashint8extended(c.id, {seed}), c.id) <= ({rank}, {last})"

    def _group(self, chosen: ClientFilter) -> str:
        return f"({' AND '.join(self.terms(chosen)) or 'true'})"

    def _plain(self, chosen: ClientFilter) -> list[str]:
        zones = every_name_of(chosen.timezones)
        columns = (("c.tag", chosen.tags), ("c.operator_code", chosen.operator_codes), ("c.timezone", zones))
        terms = [f"{column} = ANY ({self._many(values)})" for column, values in columns if values]
        if chosen.attributes:
            terms.append(f"c.attributes @> {self._one(orjson.dumps(dict(chosen.attributes)).decode())}::jsonb")
        if chosen.client_ids:
            terms.append(f"c.id = ANY ({self._many(map(str, chosen.client_ids))}::bigint[])")
        return terms

    def _since(self, chosen: ClientFilter) -> str:
        assert chosen.created_since is not None
        return f"c.created_at >= to_timestamp({self._one(str(chosen.created_since.timestamp()))}::float8)"

    def _attribute(self, condition: AttributeCondition) -> str:
        name = self._one(condition.name)
        value = f"(c.attributes ->> {name})"
        match condition.op:
            case Op.IN | Op.NOT_IN:
                found = f"({value} = ANY ({self._many(condition.values)})) IS TRUE"
            case Op.PREFIX | Op.NOT_PREFIX:
                found = self._prefix(value, condition.values)
            case Op.EXISTS | Op.MISSING:
                found = f"c.attributes ? {name}"
            case op:
                return self._order(value, ORDERS[op], condition.values[0])
        return f"NOT ({found})" if condition.op in (Op.NOT_IN, Op.NOT_PREFIX, Op.MISSING) else f"({found})"

    def _order(self, value: str, operator: str, literal: str) -> str:
        reader = "number_of_v1" if is_number(literal) else "moment_of_v1"
        return f"(({reader}({value}) {operator} {reader}({self._one(literal)})) IS TRUE)"

    def _prefix(self, value: str, prefixes: Iterable[str]) -> str:
        """Return that a value begins with one of these: of each length, its beginning is one of a set."""
        by_length: dict[int, list[str]] = {}
        for prefix in prefixes:
            by_length.setdefault(len(prefix), []).append(prefix)
        beginnings = (f"left({value}, {length}) = ANY ({self._many(some)})" for length, some in by_length.items())
        return f"({_either(beginnings)} IS TRUE)"

    def _mailing(self, condition: MailingCondition) -> str:
        """Return that the client's message of a mailing has one of the statuses: a look-up by the key."""
        key = f"{self._one(str(condition.mailing_id))}::bigint"
        shape = _MESSAGE if _UNTRIED.isdisjoint(condition.wanted) else _ANY_MESSAGE
        statuses = self._many(str(status.value) for status in condition.wanted)
        return f"(({_EXISTS.format(key)} AND {shape.format(key)} = ANY ({statuses}::smallint[])) IS TRUE)"

    def _one(self, literal: str) -> str:
        self.literals.append(literal)
        return f"($literals::text[])[{len(self.literals)}]"

    def _many(self, literals: Iterable[str]) -> str:
        first = len(self.literals) + 1
        self.literals += literals
        return f"($literals::text[])[{first}:{len(self.literals)}]"


def _either(terms: Iterable[str]) -> str:
    return f"({' OR '.join(terms)})"
