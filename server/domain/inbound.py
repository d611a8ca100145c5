"""What clients write back: the words by which they opt out of mailings, and in again.

Pure. A word counts only as the whole message: a sentence with STOP in it opts nobody out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dispatcher.model.answers import Source
from server.domain.receipts import MAX_REPORTS, Incoming, Items, text_at
from server.domain.signatures import Verifier

STOP_WORDS = ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT")
START_WORDS = ("START",)

_LONGEST_PHONE = 15
_SHORTEST_PHONE = 7


class ConsentChange(NamedTuple):
    """What a client asks for: to opt out (`out`) or in again, by a word, from a phone (digits)."""

    phone: str
    out: bool
    word: str


@dataclass(frozen=True, slots=True)
class InboundRules:
    """How an endpoint's inbound messages are read, and what words mean: true is out, false in again."""

    parse: str
    sender: Source
    text: Source
    words: Mapping[str, bool]
    items: Items | None = None


class InboundSource(NamedTuple):
    """Where inbound messages come from: how they are read, and what shows that they are the gateway's."""

    rules: InboundRules
    verify: Verifier
    needs_url: bool = False


def words_of(stop: list[str], start: list[str]) -> dict[str, bool]:
    """Return the meaning of the usual words and of one's own, of which the latter go first."""
    words = dict.fromkeys(STOP_WORDS, True) | dict.fromkeys(START_WORDS, False)
    words |= dict.fromkeys(stop, True) | dict.fromkeys(start, False)
    return {normal(word): out for word, out in words.items()}


def normal(text: str) -> str:
    """Return a message as it is compared: without case, blanks around it, and punctuation at its end."""
    return " ".join(text.casefold().split()).strip("\"'«»“”").rstrip(".!?…").strip()


def phone_of(text: str) -> str:
    """Return the digits of a phone, '' for what is none."""
    digits = "".join(one for one in text.removeprefix("whatsapp:") if one not in " ()-.+")
    digits = digits.removeprefix("00")
    is_phone = digits.isascii() and digits.isdecimal() and _SHORTEST_PHONE <= len(digits) <= _LONGEST_PHONE
    return digits if is_phone else ""


def consent_changes_of(rules: InboundRules, incoming: Incoming) -> list[ConsentChange]:
    """Return what the messages of a request ask for, and pass over others. Of one phone the last one holds."""
    found: dict[str, ConsentChange] = {}
    items = [incoming.document] if rules.items is None else rules.items.find(incoming.document)
    for item, _ in zip(items, range(MAX_REPORTS), strict=False):
        phone, word = phone_of(text_at(rules.sender, item, incoming)), normal(_whole(rules.text, item, incoming))
        if phone and word in rules.words:
            found[phone] = ConsentChange(phone, rules.words[word], word.upper())
    return list(found.values())


def _whole(source: Source, item: object, incoming: Incoming) -> str:
    """Return a text that may have line breaks."""
    found = None if source.at is None else source.at.find(item)
    return found if isinstance(found, str) else text_at(source, item, incoming)
