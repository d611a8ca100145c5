"""The rows of an import: what each one holds, what it speaks of, and what a file as a whole speaks of.

What a row does not speak of stays as it is stored. A client who is new takes everything that the row
holds, whatever the mask names. Bare tuples and numbers, because an import makes millions of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from server.domain.clients import CLIENT_FIELDS, ClientDefinition, derived_operator_code
from server.domain.errors import FieldViolation, InvalidFields
from server.domain.validation import MAX_VIOLATIONS, Violations, valid_name

_ATTRIBUTE = "attributes."

MAX_ROW_ERRORS = 1000
MAX_ROW_ERROR_BYTES = 512 << 10
"""How many bad fields an answer names."""


class Spoken(IntEnum):
    """The fields that a row changes where the client is stored already; an opt-out speaks for itself."""

    OPERATOR_CODE = 1
    TAG = 2
    TIMEZONE = 4
    WINDOW = 8
    ATTRIBUTES = 16


_FLAGS = {
    "operator_code": Spoken.OPERATOR_CODE,
    "tag": Spoken.TAG,
    "timezone": Spoken.TIMEZONE,
    "receive_window": Spoken.WINDOW,
    "attributes": Spoken.ATTRIBUTES,
}

ImportRow = tuple[str, str, str, str, tuple[int, int] | None, Mapping[str, str] | None, bool | None, int]
"""A checked client of an import, as a bare tuple for speed: phone, operator code, tag, timezone (empty:
not given), window (start and length in seconds), attributes, opted out (None: not spoken of), and what
the row speaks of."""


@dataclass(frozen=True, slots=True)
class ImportMask:
    """What all rows speak of. `spoken` None: each row speaks of what it sets itself.

    With `attribute_names` only these attributes are changed, and the others stay.
    """

    spoken: int | None = None
    attribute_names: tuple[str, ...] | None = None

    def of(self, definition: ClientDefinition) -> int:
        """Return what the row of this definition speaks of."""
        if self.spoken is not None:
            return self.spoken
        return (
            Spoken.OPERATOR_CODE * bool(definition.operator_code)
            | Spoken.TAG * bool(definition.tag)
            | Spoken.TIMEZONE * bool(definition.timezone)
            | Spoken.WINDOW * (definition.receive_window is not None)
            | Spoken.ATTRIBUTES * bool(definition.attributes)
        )


EACH_ROW = ImportMask()
"""Each row changes what it sets itself."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How an import is done: with `validate_only` nothing is stored, with `skip_invalid` only the good rows."""

    mask: ImportMask = EACH_ROW
    validate_only: bool = False
    skip_invalid: bool = False

    @property
    def returns_errors(self) -> bool:
        """Whether bad rows are returned instead of ending the call."""
        return self.validate_only or self.skip_invalid


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import did. Rows that a later row replaced count as updated."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0


class RowError(NamedTuple):
    """One bad field: the row's position in the stream, the field within it, and a sentence."""

    row: int
    field: str
    sentence: str


class RowErrors:
    """The bad rows of an import: all of them counted, the first ones kept."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept: list[RowError] = []
        self._bytes = 0

    def add(self, row: int, found: Sequence[FieldViolation]) -> None:
        """Count a row, whose violations have paths within it; one without any is good."""
        self.rows += bool(found)
        for path, sentence in ((one.path, one.sentence) for one in found):
            size = len(path.encode()) + len(sentence.encode()) + 16
            if len(self.kept) < MAX_ROW_ERRORS and self._bytes + size <= MAX_ROW_ERROR_BYTES:
                self.kept.append(RowError(row, path, sentence))
                self._bytes += size

    def check(self) -> None:
        """Raise InvalidFields if there is a bad row."""
        if self.rows:
            violations = [FieldViolation(f"clients[{one.row}].{one.field}", one.sentence) for one in self.kept]
            raise InvalidFields(violations[:MAX_VIOLATIONS], self.rows)


def import_mask(paths: Sequence[str], violations: Violations) -> ImportMask:
    """Return the mask that `paths` spell; report those that are no field of a client."""
    if not paths:
        return EACH_ROW
    spoken, names = 0, list[str]()
    for path in CLIENT_FIELDS if list(paths) == ["*"] else paths:
        if path.startswith(_ATTRIBUTE) and valid_name(path.removeprefix(_ATTRIBUTE)):
            names.append(path.removeprefix(_ATTRIBUTE))
        elif path in CLIENT_FIELDS:
            spoken |= _FLAGS.get(path, 0)
        else:
            known = f"{', '.join(CLIENT_FIELDS)} and attributes.NAME (or *)"
            violations.add("update_mask", f"{path[:80]!r} cannot be imported; the fields are {known}")
    if names and not spoken & Spoken.ATTRIBUTES:
        return ImportMask(spoken | Spoken.ATTRIBUTES, tuple(names))
    return ImportMask(spoken)


def import_row(definition: ClientDefinition, mask: ImportMask = EACH_ROW) -> ImportRow:
    """Return a checked definition as a row."""
    window = definition.receive_window
    spans = None
    if window is not None:
        start = window.start.hour * 3600 + window.start.minute * 60 + window.start.second
        spans = (start, int(window.duration.total_seconds()))
    return (
        definition.phone,
        definition.operator_code or derived_operator_code(definition.phone),
        definition.tag,
        definition.timezone,
        spans,
        definition.attributes or None,
        definition.opted_out,
        mask.of(definition),
    )
