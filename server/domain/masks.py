"""Update masks: the record that results from what a mask names of a patch.

A path names a field, `tag`, or a part of one: a field of a nested record, `receive_window.start`, or
an entry of a map, `attributes.city`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from server.domain.errors import InvalidFields
from server.domain.validation import invalid

Record = TypeVar("Record")


def fields_of_parts(paths: Collection[str]) -> frozenset[str]:
    """Return the fields of which `paths` name parts: these can be checked when the parts are put together."""
    return frozenset(path.partition(".")[0] for path in paths if "." in path)


def parts_of(field: str, paths: Collection[str]) -> frozenset[str]:
    """Return the parts of `field` that `paths` name, none where they name the whole of it."""
    if field in paths:
        return frozenset()
    return frozenset(path.removeprefix(f"{field}.") for path in paths if path.startswith(f"{field}."))


def merged(before: Record, patch: Record, paths: Collection[str], at: str) -> Record:
    """Return the dataclass `before` with what `paths` name taken from `patch`; `at` is its path in the request.

    An entry of a map that the patch lacks is removed. Raise InvalidFields for a part of what is absent.
    """
    changes = {path: getattr(patch, path) for path in paths if "." not in path}
    for name in fields_of_parts(paths) - changes.keys():
        parts = parts_of(name, paths)
        changes[name] = _with_parts(getattr(before, name, None), getattr(patch, name, None), parts, f"{at}.{name}")
    return replace(before, **changes)  # type: ignore[type-var]


def _with_parts(before: Any, patch: Any, parts: Collection[str], at: str) -> Any:
    if isinstance(before, Mapping):
        kept = {key: value for key, value in before.items() if key not in parts}
        return kept | {key: patch[key] for key in parts if key in patch}
    if patch is None:
        raise invalid(at, "is required: the mask names a part of it")
    if not is_dataclass(patch):
        raise _no_parts(at)
    if before is None:
        missing = {field.name for field in fields(patch)} - set(parts)
        if missing:
            raise invalid(f"{at}.{min(missing)}", "is required, as the field was empty: name it in the mask as well")
        return patch
    return merged(before, patch, parts, at)


def _no_parts(at: str) -> InvalidFields:
    return invalid("update_mask", f"{at.partition('.')[2]!r} has no parts that can be changed alone")
