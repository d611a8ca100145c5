"""Violations of one request, and the checks that several kinds of record share.

A check reports to a `Violations` and continues, so that the caller sees every problem at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from server.domain.errors import FieldViolation, InvalidFields

MAX_VIOLATIONS = 50
"""Maximum violations in an error, which has to fit into the trailing metadata of a call."""

MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE = 1000
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50

valid_name = re.compile(r"\w{1,64}").fullmatch
"""Matches the name of an attribute: letters, digits and '_', up to 64."""


class Violations:
    """The bad fields of one request found so far."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: str, sentence: str) -> None:
        """Report the field at `path`; more than MAX_VIOLATIONS are dropped."""
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(FieldViolation(path, sentence))

    @property
    def found(self) -> Sequence[FieldViolation]:
        """What was reported."""
        return self._found

    def check(self) -> None:
        """Raise InvalidFields if anything was reported."""
        if self._found:
            raise InvalidFields(self._found)


def invalid(path: str, sentence: str) -> InvalidFields:
    """Return the error for a single field."""
    return InvalidFields([FieldViolation(path, sentence)])


def check_text(value: str, limit: int, path: str, violations: Violations) -> None:
    """Report a text longer than `limit` characters or with a NUL, which Postgres cannot store."""
    if len(value) > limit:
        violations.add(path, f"must have at most {limit:,} characters, not {len(value):,}")
    if "\0" in value:
        violations.add(path, "must not contain a NUL character")


def check_texts(values: Sequence[str], limit: int, path: str, violations: Violations) -> None:
    """Report each of `values` that `check_text` would."""
    for index, value in enumerate(values):
        check_text(value, limit, f"{path}[{index}]", violations)


def check_count(values: Sequence[object] | Mapping[str, str], limit: int, path: str, violations: Violations) -> bool:
    """Report a list or map with more than `limit` entries; return whether it is short enough."""
    if len(values) <= limit:
        return True
    violations.add(path, f"must have at most {limit:,} entries, not {len(values):,}")
    return False


def check_attributes(attributes: Mapping[str, str], path: str, violations: Violations) -> None:
    """Report attributes whose number, names or values are out of the limits."""
    if not check_count(attributes, MAX_ATTRIBUTES, path, violations):
        return
    for name, value in attributes.items():
        if valid_name(name):
            check_text(value, MAX_ATTRIBUTE, f"{path}.{name}", violations)
        else:
            violations.add(path, f"the name {name[:80]!r} must be 1 to 64 letters, digits or '_'")


def check_id(value: int, path: str, violations: Violations) -> None:
    """Report an id that no resource can have."""
    if value <= 0:
        violations.add(path, "is required and must be a positive id")


def require_id(value: int, path: str) -> None:
    """Raise InvalidFields for an id that no resource can have."""
    violations = Violations()
    check_id(value, path, violations)
    violations.check()


def request_id(value: str, violations: Violations) -> UUID | None:
    """Return the UUID in `value`, None when it is empty; report anything else."""
    if not value:
        return None
    try:
        return UUID(value)
    except ValueError:
        violations.add("request_id", "must be a UUID such as 3f0c6e0a-9d0b-4c5e-8a53-0d6d0ad1b6a4")
        return None


def page_size(value: int, violations: Violations) -> int:
    """Return the size of a page within its limits; report a negative number."""
    if value < 0:
        violations.add("page_size", "must not be negative")
    return min(value, MAX_PAGE_SIZE) if value > 0 else DEFAULT_PAGE_SIZE


def update_mask(
    paths: Sequence[str],
    fields: Sequence[str],
    populated: Sequence[str],
    ignored: Collection[str],
    violations: Violations,
    is_part: Callable[[str], bool] = lambda path: False,
) -> frozenset[str]:
    """Return the fields an update changes, out of the updatable `fields`, and parts of these.

    `paths` is the mask: empty means the `populated` fields, `*` all of them. A path to or into
    one of the `ignored` fields changes nothing; `is_part` tells the paths that exist below a field.
    Reports any other path that is not updatable at `update_mask`.
    """
    if not paths:
        return frozenset(populated).intersection(fields)
    if list(paths) == ["*"]:
        return frozenset(fields)
    chosen = set()
    for path in paths:
        field = path.partition(".")[0]
        if path in fields or (field in fields and is_part(path)):
            chosen.add(path)
        elif field not in ignored:
            violations.add("update_mask", f"{path[:80]!r} cannot be updated; the fields are {', '.join(fields)} (or *)")
    return frozenset(chosen)
