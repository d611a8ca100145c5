"""The text that one client would get, and whether it may be sent: neither empty nor too long.

Checked after rendering, because it depends on the client. What is too long is not even made, so
that long attributes in many placeholders take no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dispatcher.model.sms import MOST_CHARACTERS_PER_SEGMENT, SAFE_CHARACTERS_PER_SEGMENT, sms_length
from dispatcher.model.states import Reason
from dispatcher.model.templates import Template

__all__ = ["RenderedText", "TextRenderer"]


class RenderedText(NamedTuple):
    """A text, and why it is not to be sent; NONE when it is."""

    text: str
    reason: Reason


class TextRenderer:
    """Renders a template per client; a text takes at most `max_segments` SMS."""

    def __init__(self, template: Template, max_segments: int) -> None:
        self._template = template
        self._max_segments = max_segments
        self._safe_length = max_segments * SAFE_CHARACTERS_PER_SEGMENT
        self._most_length = max_segments * MOST_CHARACTERS_PER_SEGMENT

    @property
    def suits_everybody(self) -> bool:
        """Whether the text may be sent whatever the client, which is known without looking at any."""
        return self._template.is_never_blank and self._template.longest <= self._safe_length

    def __call__(
        self, phone: str, operator_code: str, tag: str, timezone: str, attributes: Mapping[str, str]
    ) -> RenderedText:
        """Return the text for one client; an empty one when it is not to be sent."""
        length = self._template.length(phone, operator_code, tag, timezone, attributes)
        if length > self._most_length:
            return RenderedText("", Reason.TOO_LONG)
        text = self._template.render(phone, operator_code, tag, timezone, attributes)
        if not text or text.isspace():
            return RenderedText("", Reason.EMPTY_TEXT)
        if length > self._safe_length and sms_length(text).segments > self._max_segments:
            return RenderedText("", Reason.TOO_LONG)
        return RenderedText(text, Reason.NONE)
