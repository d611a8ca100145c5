"""The text that one client would get, and whether it may be sent: neither empty nor too long.

Checked after rendering, because it depends on the client. What is too long is not even made, so
that long attributes in many placeholders take no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dispatcher.model.requests import RequestForm
from dispatcher.model.sms import MOST_CHARACTERS_PER_SEGMENT, SAFE_CHARACTERS_PER_SEGMENT, sms_length
from dispatcher.model.states import Reason
from dispatcher.model.templates import Template

__all__ = ["RenderedText", "TextRenderer"]


class RenderedText(NamedTuple):
    """A text, why it is not to be sent (NONE when it is), and the values that the endpoint's requests need beside."""

    text: str
    reason: Reason
    values: tuple[str, ...] = ()


class TextRenderer:
    """Renders a template per client; a text takes at most `max_segments` SMS.

    With a `form`, of the endpoint's requests, a client needs the attributes that it requires; `title` is the
    mailing's.
    """

    def __init__(self, template: Template, max_segments: int, form: RequestForm | None = None, title: str = "") -> None:
        self._form = form if form is not None and (form.needs or form.requires) else None
        self._title = title
        self._template = template
        self._max_segments = max_segments
        self._safe_length = max_segments * SAFE_CHARACTERS_PER_SEGMENT
        self._most_length = max_segments * MOST_CHARACTERS_PER_SEGMENT

    @property
    def suits_everybody(self) -> bool:
        """Whether the text may be sent whatever the client, which is known without looking at any."""
        harmless = self._template.is_never_blank and self._template.longest <= self._safe_length
        return harmless and not (self._form and self._form.requires)

    @property
    def is_constant(self) -> bool:
        """Whether every client gets the same, and no value of theirs is needed."""
        return self._template.is_constant and self._form is None

    def all_texts(self, fields: Sequence[Sequence[str]]) -> Sequence[str] | None:
        """Return the texts of clients at once, where each may be sent and none needs attributes; else None.

        `fields` has a column each of phones, operator codes, tags and time zones.
        """
        if self._form is not None or self._template.needs_attributes or not self.suits_everybody:
            return None
        return self._template.render_all(fields)

    def __call__(
        self, phone: str, operator_code: str, tag: str, timezone: str, attributes: Mapping[str, str]
    ) -> RenderedText:
        """Return the text for one client; an empty one when it is not to be sent."""
        if self._form is not None and not self._form.has_address(attributes):
            return RenderedText("", Reason.NO_ADDRESS)
        length = self._template.length(phone, operator_code, tag, timezone, attributes)
        if length > self._most_length:
            return RenderedText("", Reason.TOO_LONG)
        text = self._template.render(phone, operator_code, tag, timezone, attributes)
        if not text or text.isspace():
            return RenderedText("", Reason.EMPTY_TEXT)
        if length > self._safe_length and sms_length(text).segments > self._max_segments:
            return RenderedText("", Reason.TOO_LONG)
        values = () if self._form is None else self._form.values_of(self._title, attributes)
        return RenderedText(text, Reason.NONE, values)
