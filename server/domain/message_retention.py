"""For how long the messages of mailings are kept once these are over: the rules, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

KEEP = "keep"
"""Written for messages that are kept for good."""

GRACE = 0.1
"""How much longer, as a share, messages may be kept so that their whole partition goes at once."""

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(r"(\d{1,6})([dhms])")
_LONGEST = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class LabelRule:
    """For how long the messages of mailings with this label are kept; None is for good."""

    name: str
    value: str
    keep: timedelta | None


@dataclass(frozen=True, slots=True)
class MessageRetention:
    """The first of `labels` that a mailing has decides, else `keep`; None is for good."""

    keep: timedelta | None = None
    labels: Sequence[LabelRule] = ()

    @property
    def removes(self) -> bool:
        """Whether any messages are ever removed."""
        return self.keep is not None or any(rule.keep is not None for rule in self.labels)


def parse_retention(text: str) -> MessageRetention:
    """Return the rules of a text such as `90d, purpose=otp:7d, purpose=contract:keep`.

    Raise ValueError for anything else: at most one part without a label, spans of d, h, m or s, up to 100 years.
    """
    keep: timedelta | None = None
    labels, plain = [], 0
    for part in (one.strip() for one in text.split(",")):
        label, colon, span = part.rpartition(":")
        if not colon:
            keep, plain = _span(part), plain + 1
            continue
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise ValueError(part)
        labels.append(LabelRule(name.strip(), value.strip(), _span(span.strip())))
    if plain > 1:
        raise ValueError(text)
    return MessageRetention(keep, tuple(labels))


def _span(text: str) -> timedelta | None:
    if text == KEEP:
        return None
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not timedelta(0) < span <= _LONGEST:
        raise ValueError(text)
    return span
