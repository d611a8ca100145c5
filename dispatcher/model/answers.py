"""How the answers of an endpoint are read: what they hold and where, described in its configuration.

Immutable, made once. What an answer means by these rules is decided in `dispatcher.described_answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.model.states import ErrorClass

__all__ = ["CLASSES", "MISSING", "AnswerRules", "ErrorRule", "Match", "Pointer", "Source"]


class _Missing:
    """What is found where there is nothing."""


MISSING: Final = _Missing()

CLASSES = {
    "throttled": ErrorClass.THROTTLED,
    "transient": ErrorClass.TRANSIENT,
    "refused": ErrorClass.REFUSED,
    "opted_out": ErrorClass.OPTED_OUT,
    "credentials": ErrorClass.CREDENTIALS,
}
"""The classes that a description may give to answers, by their names."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A JSON pointer (RFC 6901)."""

    tokens: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Pointer:
        """Return the pointer that `text` spells. Raise ValueError, the end of a sentence, for one that is none."""
        if not text:
            return cls()
        if not text.startswith("/"):
            raise ValueError("is no JSON pointer: it begins with '/', such as /messages/0/status")
        return cls(tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/")))

    def find(self, document: object) -> object:
        """Return what it points to in a document; MISSING where there is nothing."""
        found = document
        for token in self.tokens:
            if isinstance(found, dict):
                found = found.get(token, MISSING)
            elif isinstance(found, list) and token.isdecimal() and len(token) < 10 and int(token) < len(found):
                found = found[int(token)]
            else:
                return MISSING
        return found


@dataclass(frozen=True, slots=True)
class Source:
    """Where an answer says something: in its body at a pointer, or in a header, whose name is in lower case."""

    at: Pointer | None = None
    header: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Return the source of `header:NAME` or of a pointer. Raise ValueError."""
        if text.startswith("header:"):
            name = text.removeprefix("header:").strip().lower()
            if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError("names no header, such as header:X-Message-Id")
            return cls(header=name)
        return cls(Pointer.parse(text))


@dataclass(frozen=True, slots=True)
class Match:
    """Which answers are meant: by status (None: any), and by what the body holds at a pointer, type for type.

    Without `values` anything that is neither missing nor null is meant.
    """

    statuses: frozenset[int] | None = None
    at: Pointer | None = None
    values: frozenset[tuple[type, object]] | None = None

    def __call__(self, status: int, document: object) -> bool:
        """Return whether an answer with this status and body is meant; `document` is MISSING for an unreadable one."""
        if self.statuses is not None and status not in self.statuses:
            return False
        if self.at is None:
            return True
        found = self.at.find(document)
        if self.values is None:
            return found is not MISSING and found is not None
        return isinstance(found, int | float | str) and (type(found), found) in self.values


def typed(values: Sequence[object]) -> frozenset[tuple[type, object]]:
    """Return values with their types: 0 is neither "0" nor 0.0 nor false."""
    return frozenset((type(value), value) for value in values)


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """Answers that mean a class of error."""

    match: Match
    error_class: ErrorClass


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """All that a description says of answers.

    `success` is asked first, but after those `errors` that look into the body if it does not do so itself;
    then `errors`, of which the first that matches holds.
    """

    success: Match
    errors: tuple[ErrorRule, ...] = ()
    retry_after: Source | None = None
    provider_id: Source | None = None

    @property
    def headers(self) -> frozenset[str]:
        """The headers of an answer that are looked at, in lower case, Retry-After apart."""
        sources = (self.retry_after, self.provider_id)
        return frozenset(source.header for source in sources if source is not None and source.header)
