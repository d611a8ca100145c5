"""Excerpts of answers as they are stored, shown and logged: without secrets and without the people they are about.

A gateway repeats what it was asked: the phone with blanks in it or without its country code, the e-mail
address, the token. All of that is taken out before the excerpt is cut, so that no part of it is left at the end. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from unicodedata import decimal
from urllib.parse import quote, quote_plus

import orjson

from dispatcher.model.endpoints import Endpoint
from dispatcher.model.placeholders import national
from dispatcher.verdict import MAX_EXCERPT, printable

MIN_HIDDEN = 6
"""Shorter secrets and numbers are not looked for: they would be found in ordinary words and codes."""

MASK = "…"

_NUMBER = re.compile(r"\d(?:[\W_]{0,4}\d){5,}")
"""Digits that could be a phone, whatever stands between them."""

_LONGEST_NUMBER = 80
_ATTRIBUTE = "attributes."


class Excerpts:
    """Makes the excerpts of one endpoint's answers.

    Of an endpoint that takes many messages in one request no longer number is left at all: an answer speaks of others.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        secrets = (endpoint.token, *endpoint.secrets)
        self._secrets = _longest_first(spelling for one in secrets for spelling in _spellings(one))
        needs = endpoint.request.needs if endpoint.request else ()
        self._addresses = [index for index, need in enumerate(needs) if need.startswith(_ATTRIBUTE)]
        self._hides_numbers = endpoint.messages_per_request > 1

    def of(self, body: bytes, phone: str, values: Sequence[str] = ()) -> str:
        """Return the beginning of an answer about the client with this phone; `values` are those of the request."""
        addresses = (spelling for index in self._addresses for spelling in _spellings(values[index]))
        hidden = [*self._secrets, *_longest_first(addresses)] if values else self._secrets
        margin = max([_LONGEST_NUMBER, *map(len, hidden[:1]), *map(len, hidden[len(self._secrets) :])])
        size = 4 * (MAX_EXCERPT + margin)  # four bytes are the most that a character can take
        text = body[:size].decode("utf-8", "replace")
        for one in hidden:
            text = text.replace(one, MASK)
        text = self._without_numbers(text, phone)
        kept = text if len(body) <= size else text[:-margin]  # what is cut off at the end may be part of a secret
        return printable(kept[:MAX_EXCERPT])

    def _without_numbers(self, text: str, phone: str) -> str:
        if self._hides_numbers:
            return _NUMBER.sub(MASK, text)
        wanted = [one for one in (phone, national(phone)) if len(one) >= MIN_HIDDEN]
        if not wanted:
            return text
        return _NUMBER.sub(lambda found: _without(found[0], wanted), text)


def _without(text: str, numbers: Sequence[str]) -> str:
    """Return a run of digits and what stands between them without these numbers."""
    places = [index for index, character in enumerate(text) if character.isdecimal()]
    digits = "".join(str(decimal(text[index])) for index in places)
    for number in numbers:
        at = digits.find(number)
        if at >= 0:
            rest = text[places[at + len(number) - 1] + 1 :]
            return text[: places[at]] + MASK + _without(rest, numbers)
    return text


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is and as JSON, PHP's JSON, URLs and forms write it; nothing for a short one."""
    if len(secret) >= MIN_HIDDEN:
        try:
            escaped = orjson.dumps(secret)[1:-1].decode()
        except TypeError:  # half of a surrogate pair
            escaped = secret
        yield from {secret, escaped, escaped.replace("/", r"\/"), quote(secret, "", errors="replace")}
        yield from {quote_plus(secret, errors="replace")}


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts), key=len, reverse=True)
