"""How long a text is as an SMS: its characters, its encoding, and the segments it takes.

The alphabets are those of 3GPP TS 23.038 (6.2.1 the default alphabet, 6.2.1.1 its extension,
6.2.3 UCS-2), without national language tables. A segment holds 140 bytes; those of a longer
text begin with the 6 bytes of the concatenation header of 3GPP TS 23.040 (9.2.3.24.1). A
leaf: it imports nothing of the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "MOST_CHARACTERS_PER_SEGMENT",
    "SAFE_CHARACTERS_PER_SEGMENT",
    "SmsEncoding",
    "SmsLength",
    "sms_length",
]

_DEFAULT = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
"""Each of these is an escape and a second septet."""

_ALPHABET = _DEFAULT | _EXTENSION


class SmsEncoding(IntEnum):
    """What a text is sent in; the numbers are those of the contract."""

    GSM7 = 1
    UCS2 = 2


_LIMITS = {SmsEncoding.GSM7: (160, 153), SmsEncoding.UCS2: (70, 67)}
"""How many septets, or UTF-16 code units, a text may have that is alone, and each of several."""


MOST_CHARACTERS_PER_SEGMENT = 160
"""No segment holds more characters, whatever they are."""

SAFE_CHARACTERS_PER_SEGMENT = 33
"""Every segment holds as many characters, whatever they are: each may take two of 67 units, and none is split."""


@dataclass(frozen=True, slots=True)
class SmsLength:
    """The length of one text. `segments` is at least 1, also for an empty text."""

    characters: int
    encoding: SmsEncoding
    segments: int


def sms_length(text: str) -> SmsLength:
    """Return the length of `text`; a single character outside of GSM-7 makes all of it UCS-2."""
    encoding = SmsEncoding.GSM7 if _ALPHABET.issuperset(text) else SmsEncoding.UCS2
    widths = [_width(character, encoding) for character in text]
    alone, one_of_several = _LIMITS[encoding]
    return SmsLength(len(text), encoding, 1 if sum(widths) <= alone else _segments(widths, one_of_several))


def _width(character: str, encoding: SmsEncoding) -> int:
    if encoding is SmsEncoding.GSM7:
        return 2 if character in _EXTENSION else 1
    return 2 if character > "\uffff" else 1


def _segments(widths: list[int], limit: int) -> int:
    """Fill segments one after the other: what takes two units is never split over two of them."""
    segments, used = 1, 0
    for width in widths:
        if used + width > limit:
            segments, used = segments + 1, 0
        used += width
    return segments
