"""Puts the filters of segments in where a filter names them."""

from __future__ import annotations

import asyncpg
import orjson

from server.domain.errors import FieldViolation, InvalidFields
from server.domain.filters import (
    ClientFilter,
    conditions_in,
    filter_from_json,
    names_of_segments,
    with_names,
    with_segments,
)
from server.domain.validation import invalid
from server.storage.queries import load_queries

_SQL = load_queries("segments.sql")

MAX_CONDITIONS = 500
"""Conditions of a filter with those of its segments."""


async def resolved(
    connection: asyncpg.Connection, chosen: ClientFilter, path: str = "filter", keep: bool = False
) -> tuple[ClientFilter, ClientFilter]:
    """Return the filter with its segments by their stored names, and with their filters put in.

    With `keep` the segments stay as they are until the end of the transaction. Raise InvalidFields for one that does
    not exist.
    """
    named = list(names_of_segments(chosen, path))
    if not named:
        return chosen, chosen
    query = _SQL["share_segments" if keep else "read_segments"]
    rows = await connection.fetch(*query.bind(names=sorted({name.lower() for _, name in named})))
    known = {row["name"].lower(): row for row in rows}
    unknown = [FieldViolation(at, f"there is no segment {name!r}") for at, name in named if name.lower() not in known]
    if unknown:
        raise InvalidFields(unknown)
    chosen = with_names(chosen, {name: known[name.lower()]["name"] for _, name in named})
    whole = with_segments(chosen, {row["name"]: filter_from_json(orjson.loads(row["filter"])) for row in rows})
    if conditions_in(whole) > MAX_CONDITIONS:
        raise invalid(path, f"has more than {MAX_CONDITIONS} conditions together with its segments")
    return chosen, whole


def filter_json(chosen: ClientFilter) -> str:
    """Return the filter as it is stored."""
    return orjson.dumps(chosen.as_json()).decode()
