"""The rows of an import: what each one holds, what it speaks of, and what a file as a whole speaks of.

What a row does not speak of stays as it is stored. A client who is new takes everything that the row
holds, whatever the mask names. Bare tuples and numbers, because an import makes millions of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from server.domain.clients import CLIENT_FIELDS, ClientDefinition, derived_operator_code
from server.domain.validation import Violations, valid_name

_ATTRIBUTE = "attributes."


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
