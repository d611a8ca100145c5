"""Hides phones from callers who may not read clients, wherever a phone leaves in an answer.

Those are: `phone` of a client that is created or updated, `phone` and `text` of a preview's
samples, `text` of a test message, and `response_excerpt` of attempts, which endpoints word.
"""

from __future__ import annotations

import re

from server.domain.principals import Scope, caller

SHOWN = 2
"""Digits at the end that stay."""

_LONG_NUMBER = re.compile(r"\d(?:[ ().-]{0,2}\d){6,}")
"""What could be a phone, however it is written."""


def shown_phone(phone: str) -> str:
    """Return a phone as the present caller may see it."""
    return phone if Scope.CLIENTS_READ in caller().scopes else _masked(phone)


def shown_text(text: str, phone: str) -> str:
    """Return a text for the client with this phone as the present caller may see it."""
    return text if Scope.CLIENTS_READ in caller().scopes else text.replace(phone, _masked(phone))


def shown_excerpt(text: str) -> str:
    """Return what somebody else worded as the present caller may see it: without any long number."""
    if Scope.CLIENTS_READ in caller().scopes:
        return text
    return _LONG_NUMBER.sub(lambda found: _masked(found[0]), text)


def _masked(number: str) -> str:
    return re.sub(r"\d", "*", number[:-SHOWN]) + number[-SHOWN:]
