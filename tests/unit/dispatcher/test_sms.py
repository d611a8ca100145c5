"""The length of texts as SMS, against the tables and limits of 3GPP TS 23.038."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.sms import SmsEncoding, SmsLength, sms_length

GSM7, UCS2 = SmsEncoding.GSM7, SmsEncoding.UCS2

DEFAULT_ALPHABET = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)


@pytest.mark.parametrize(
    ("text", "characters", "encoding", "segments"),
    [
        ("", 0, GSM7, 1),
        ("a" * 160, 160, GSM7, 1),
        ("a" * 161, 161, GSM7, 2),
        ("a" * 306, 306, GSM7, 2),
        ("a" * 307, 307, GSM7, 3),
        ("€" * 80, 80, GSM7, 1),
        ("€" * 81, 81, GSM7, 2),
        ("a" * 159 + "€", 160, GSM7, 2),
        # The 153rd septet stays empty, as an escape pair is not split: 76 pairs in each segment.
        ("€" * 152, 152, GSM7, 2),
        ("€" * 153, 153, GSM7, 3),
        ("я" * 70, 70, UCS2, 1),
        ("я" * 71, 71, UCS2, 2),
        ("я" * 134, 134, UCS2, 2),
        ("я" * 135, 135, UCS2, 3),
        ("😀" * 35, 35, UCS2, 1),
        # 66 of 67 units: a surrogate pair is not split, either.
        ("😀" * 66, 66, UCS2, 2),
        ("😀" * 67, 67, UCS2, 3),
        ("a" * 69 + "я", 70, UCS2, 1),
        ("ç", 1, UCS2, 1),
        ("`", 1, UCS2, 1),
        ("\u1e9e", 1, UCS2, 1),
        ("\x1b", 1, UCS2, 1),
    ],
)
def test_known_lengths(text: str, characters: int, encoding: SmsEncoding, segments: int) -> None:
    assert sms_length(text) == SmsLength(characters, encoding, segments)


def test_the_alphabet_has_127_characters_and_its_extension_ten() -> None:
    assert len(set(DEFAULT_ALPHABET)) == 127
    assert sms_length(DEFAULT_ALPHABET) == SmsLength(127, GSM7, 1)
    for character in "\f^{}\\[~]|€":
        assert sms_length(character * 80).segments == 1
        assert sms_length(character * 81) == SmsLength(81, GSM7, 2)


@given(st.text(alphabet=st.sampled_from("a€я😀"), max_size=500))
def test_segments_hold_the_text_and_none_could_be_left_out(text: str) -> None:
    """An independent count: with `len(text.encode(…))` instead of characters.

    Fails when what takes two units may be split: then too few segments are counted.
    """
    length = sms_length(text)
    if length.encoding is GSM7:
        units, alone, several = len(text) + text.count("€"), 160, 153
    else:
        units, alone, several = len(text.encode("utf-16-le")) // 2, 70, 67
    assert length.characters == len(text)
    if units <= alone:
        assert length.segments == 1
    else:
        # Each segment but the last is full or lacks the one unit that a pair did not fit into.
        assert -(-units // several) <= length.segments <= -(-units // (several - 1))
