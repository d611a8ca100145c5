"""What the columns of a table of clients mean: our own headings, mappings of one's own, and those of known exports.

Headings are compared without case, spaces, hyphens and underscores. A column means one of `COLUMNS`,
`attributes.NAME`, `attributes` (a JSON object of them), or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from mailing.csv_source import CsvError

COLUMNS = ("phone", "operator_code", "tag", "timezone", "window_start", "window_end", "opted_out")
ATTRIBUTE_PREFIX = "attributes."
JSON_COLUMN = "attributes"

_NAMES = {
    "first_name": ("First Name", "Given Name"),
    "last_name": ("Last Name", "Family Name"),
}
_PEOPLE = tuple((heading, ATTRIBUTE_PREFIX + name) for name, headings in _NAMES.items() for heading in headings)

PRESETS: Mapping[str, Sequence[tuple[str, str]]] = {
    "google": (("Phone 1 - Value", "phone"), *_PEOPLE, ("E-mail 1 - Value", "attributes.email")),
    "outlook": (
        ("Mobile Phone", "phone"),
        ("Primary Phone", "phone"),
        ("Home Phone", "phone"),
        *_PEOPLE,
        ("E-mail Address", "attributes.email"),
    ),
    "mailchimp": (
        ("SMS Phone Number", "phone"),
        ("Phone Number", "phone"),
        ("Phone", "phone"),
        *_PEOPLE,
        ("Email Address", "attributes.email"),
    ),
    "hubspot": (
        ("Mobile Phone Number", "phone"),
        ("Phone Number", "phone"),
        *_PEOPLE,
        ("Email", "attributes.email"),
        ("Time Zone", "timezone"),
    ),
    "listmonk": (
        ("attributes", JSON_COLUMN),
        ("status", "opted_out"),
        ("name", "attributes.name"),
        ("email", "attributes.email"),
    ),
}
"""Headings of known exports and what they mean; of several for the same column the first that is there counts."""


class ColumnMap:
    """Gives the headings of one table their columns.

    `pairs` are mappings of one's own, by heading; an empty column leaves the heading out. `preset` is one of PRESETS,
    whose other headings are left out. With `other_columns` every heading that means nothing is an attribute.
    """

    def __init__(
        self, pairs: Mapping[str, str] | None = None, preset: str = "", *, other_columns: bool = False
    ) -> None:
        """Raise ValueError for a column that does not exist, for one that is given twice, and for no preset."""
        self._pairs = {normal(heading): column for heading, column in (pairs or {}).items()}
        self._headings = {normal(heading): heading for heading in pairs or {}}
        self._other_columns = other_columns
        self._preset = preset
        if preset and preset not in PRESETS:
            raise ValueError(f"{preset!r} is no known export: there are {', '.join(PRESETS)}")
        self._check_pairs(pairs or {})

    def _check_pairs(self, pairs: Mapping[str, str]) -> None:
        taken: dict[str, str] = {}
        for heading, column in pairs.items():
            if column and not is_column(column):
                raise ValueError(f"{column!r} is no column: there are {', '.join(COLUMNS)} and attributes.NAME")
            if column and column in taken:
                raise ValueError(f"{taken[column]!r} and {heading!r} are both mapped onto {column}")
            taken[column] = heading

    def knows(self, heading: str) -> bool:
        """Return whether a heading means something by itself."""
        name = normal(heading)
        return name in self._pairs or own_column(heading) is not None or name in dict(self._chosen([heading]))

    def columns_of(self, header: Sequence[str], name: str) -> list[str]:
        """Return the column of each heading, '' for one that is left out. Raise CsvError, naming the table."""
        missing = self._pairs.keys() - {normal(heading) for heading in header}
        if missing:
            heading = self._headings[sorted(missing)[0]]
            raise CsvError(f"{name}: has no column {heading!r}; its columns are {', '.join(map(repr, header))}")
        chosen = self._chosen(header)
        taken = {column for column in self._pairs.values() if column}
        columns = [self._column(heading, chosen, taken) for heading in header]
        unknown = [heading.strip() for heading, column in zip(header, columns, strict=True) if column is None]
        if unknown:
            raise CsvError(
                f"{name}: unknown column {', '.join(map(repr, unknown))}; known are {', '.join(COLUMNS)} and "
                f"attributes.NAME. Give it a meaning with --map '{unknown[0]}=COLUMN', leave it out with "
                f"--map '{unknown[0]}=', or import all of them as attributes with --other-columns"
            )
        found = [column or "" for column in columns]
        twice = next((column for column in found if column and found.count(column) > 1), None)
        if twice:
            raise CsvError(f"{name}: column {twice} occurs twice")
        return found

    def _chosen(self, header: Iterable[str]) -> dict[str, str]:
        """Return the headings of the preset that count, by their normal form."""
        there = {normal(heading) for heading in header}
        chosen: dict[str, str] = {}
        for heading, column in PRESETS.get(self._preset, ()):
            if normal(heading) in there and column not in chosen.values():
                chosen[normal(heading)] = column
        return chosen

    def _column(self, heading: str, chosen: Mapping[str, str], taken: set[str]) -> str | None:
        """Return what a heading means, '' to leave it out, None when it means nothing."""
        name = normal(heading)
        if name in self._pairs:
            return self._pairs[name]
        found = chosen.get(name) if self._preset else own_column(heading)
        if found is not None and found not in taken:
            return found
        if self._other_columns:
            return attribute_column(heading)
        return "" if self._preset else None


def normal(heading: str) -> str:
    """Return a heading without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", heading).lower()


_BY_HEADING = {normal(column): column for column in COLUMNS}


def own_column(heading: str) -> str | None:
    """Return the column that a heading of ours means; None for another one."""
    heading = heading.strip()
    if is_column(heading) and heading != JSON_COLUMN:
        return heading
    return _BY_HEADING.get(normal(heading))


def is_column(column: str) -> bool:
    """Return whether a column has this name."""
    named = column.startswith(ATTRIBUTE_PREFIX) and len(column) > len(ATTRIBUTE_PREFIX)
    return column in COLUMNS or column == JSON_COLUMN or named


def attribute_column(heading: str) -> str | None:
    """Return the column that makes an attribute of an unknown heading, such as `attributes.first_name`."""
    name = attribute_name(heading)
    return ATTRIBUTE_PREFIX + name if name else None


def attribute_name(text: str) -> str:
    """Return a text as the name of an attribute, such as `first_name`; '' when it cannot be one."""
    name = re.sub(r"\W+", "_", text.strip()).strip("_").lower()
    return name if len(name) <= 64 else ""
