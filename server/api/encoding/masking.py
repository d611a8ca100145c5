"""Masks phones for callers without the scope clients.read, in every answer that has one.

Those are: `phone` of a client that is created or updated, `phone` and `text` of a preview's
samples, `text` of a test message, and `response_excerpt` of attempts, which endpoints write.
"""

from __future__ import annotations

import re

from server.domain.principals import Scope, caller

VISIBLE = 2
"""Digits at the end that are not masked."""

_LONG_NUMBER = re.compile(r"\d(?:[\W_]{0,4}\d){6,}")
"""Anything that could be a phone, whatever stands between its digits."""


def shown_phone(phone: str) -> str:
    """Return a phone as the current caller may see it."""
    return phone if Scope.CLIENTS_READ in caller().scopes else masked(phone)


def shown_text(text: str, phone: str) -> str:
    """Return a text for the client with this phone as the current caller may see it."""
    return text if Scope.CLIENTS_READ in caller().scopes else text.replace(phone, masked(phone))


def shown_excerpt(text: str) -> str:
    """Return a foreign text as the current caller may see it: without any long number."""
    if Scope.CLIENTS_READ in caller().scopes:
        return text
    return _LONG_NUMBER.sub(lambda found: masked(found[0]), text)


def masked(number: str) -> str:
    """Return a number with its last digits only, for everybody."""
    return re.sub(r"\d", "*", number[:-VISIBLE]) + number[-VISIBLE:]
