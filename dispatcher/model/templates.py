"""The text of a mailing with placeholders, parsed once and rendered per client.

`{tag}`, `{phone}`, `{operator_code}`, `{timezone}` and `{attributes.NAME}` stand for the
client's values, `{attributes.NAME|default}` gives a value for clients whose attribute is missing or
empty (without a default it is empty), `{{` and `}}` are literal braces. A leaf: it imports nothing
of the project and does no I/O, since rendering is on the path of every message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

__all__ = ["Template", "TemplateError", "parse"]

_FIELDS = ("phone", "operator_code", "tag", "timezone")
_ATTRIBUTE = re.compile(r"attributes\.(\w{1,64})(?:\|([^{}]*))?")
_LONGEST_FIELD, _LONGEST_ATTRIBUTE = 100, 1000
"""Characters of a client's values."""

_BRACE = re.compile(r"[{}]")
_KNOWN = "{tag}, {phone}, {operator_code}, {timezone} and {attributes.NAME|default}"

_Slot = int | tuple[str, str]
"""What fills a gap: the index of a field, or an attribute's name and default."""


class TemplateError(ValueError):
    """A text that is no template. `position` counts its characters from 1."""

    def __init__(self, position: int, what: str, advice: str) -> None:
        super().__init__(f"{what} at character {position} ({advice})")
        self.position = position


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed text, made by `parse`."""

    _format: str
    """With a `%s` for every slot; the text itself when there are none."""
    _slots: tuple[_Slot, ...]
    _pick: itemgetter[Any] | None
    """Chooses the fields for `_format`; None when it takes attributes or nothing."""
    _literal: int
    """How many characters are the same for every client."""

    @property
    def is_constant(self) -> bool:
        """Whether every client gets the same text."""
        return not self._slots

    @property
    def needs_attributes(self) -> bool:
        """Whether rendering looks at the client's attributes."""
        return any(not isinstance(slot, int) for slot in self._slots)

    def render(self, phone: str, operator_code: str, tag: str, timezone: str, attributes: Mapping[str, str]) -> str:
        """Return the text for one client. `attributes` is not looked at unless `needs_attributes`."""
        if not self._slots:
            return self._format
        fields = (phone, operator_code, tag, timezone)
        if self._pick is not None:
            text: str = self._format % self._pick(fields)
            return text
        return self._format % tuple(
            [fields[slot] if isinstance(slot, int) else attributes.get(slot[0]) or slot[1] for slot in self._slots]
        )

    def render_all(self, fields: Sequence[Sequence[str]]) -> list[str]:
        """Return the texts of clients, of whom `fields` has a column each of phones, codes, tags and time zones.

        For a template that does not need attributes.
        """
        if not self._slots:
            return [self._format] * len(fields[0])
        columns = [fields[slot] for slot in self._slots if isinstance(slot, int)]
        return [self._format % values for values in zip(*columns, strict=True)]

    @property
    def is_never_blank(self) -> bool:
        """Whether there is something to read in the text, whatever the client."""
        return bool(self._format.replace("%s", "").strip())

    @property
    def longest(self) -> int:
        """The most characters that `render` can return."""
        return self._literal + sum(
            _LONGEST_FIELD if isinstance(slot, int) else max(_LONGEST_ATTRIBUTE, len(slot[1])) for slot in self._slots
        )

    def length(self, phone: str, operator_code: str, tag: str, timezone: str, attributes: Mapping[str, str]) -> int:
        """Return how many characters `render` would return, without making them."""
        fields = (phone, operator_code, tag, timezone)
        return self._literal + sum(
            len(fields[slot] if isinstance(slot, int) else attributes.get(slot[0]) or slot[1]) for slot in self._slots
        )


def parse(text: str) -> Template:
    """Return the template that `text` spells.

    Raise TemplateError for a placeholder that is unknown or not closed, and for a single
    closing brace.
    """
    literals, slots, at = [""], list[_Slot](), 0
    while brace := _BRACE.search(text, at):
        start = brace.start()
        literals[-1] += text[at:start]
        if text.startswith(brace[0] * 2, start):
            literals[-1] += brace[0]
            at = start + 2
        elif brace[0] == "}":
            raise TemplateError(start + 1, "a single '}'", "write '}}' for a literal brace")
        else:
            slot, at = _placeholder(text, start)
            slots.append(slot)
            literals.append("")
    literals[-1] += text[at:]
    return _assemble(literals, tuple(slots))


def _placeholder(text: str, start: int) -> tuple[_Slot, int]:
    """Read the placeholder whose brace opens at `start`; return it and where it ends."""
    end = _BRACE.search(text, start + 1)
    if end is None:
        raise TemplateError(start + 1, "a placeholder that is not closed", "write '{{' for a literal brace")
    if end[0] == "{":
        raise TemplateError(
            start + 1, "a placeholder with a '{' inside", "close it before; not even a default may have braces"
        )
    name = text[start + 1 : end.start()]
    if not name:
        raise TemplateError(start + 1, "a placeholder without a name", f"there are {_KNOWN}")
    if name in _FIELDS:
        return _FIELDS.index(name), end.end()
    attribute = _ATTRIBUTE.fullmatch(name)
    if attribute is None:
        raise TemplateError(start + 1, f"an unknown placeholder {{{_shortened(name)}}}", f"there are {_KNOWN}")
    return (attribute[1], attribute[2] or ""), end.end()


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def _assemble(literals: list[str], slots: tuple[_Slot, ...]) -> Template:
    length = sum(map(len, literals))
    if not slots:
        return Template(literals[0], (), None, length)
    fields = [slot for slot in slots if isinstance(slot, int)]
    pick = itemgetter(*fields) if len(fields) == len(slots) else None
    return Template("%s".join(literal.replace("%", "%%") for literal in literals), slots, pick, length)
