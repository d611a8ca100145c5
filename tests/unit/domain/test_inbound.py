"""Words by which people opt out: alone, in any case, from a phone that is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.answers import Pointer, Source
from server.domain.inbound import ConsentChange, InboundRules, consent_changes_of, normal, phone_of, words_of
from server.domain.receipts import Incoming, Items

RULES = InboundRules(
    "json",
    Source(Pointer(("from",))),
    Source(Pointer(("text",))),
    words_of(["Basta ya"], ["Weiter"]),
    Items(()),
)


def changes(*messages: tuple[object, object]) -> list[ConsentChange]:
    document = [{"from": sender, "text": text} for sender, text in messages]
    return consent_changes_of(RULES, Incoming(document, {}, {}))


@pytest.mark.parametrize(
    ("given", "digits"),
    [
        ("+79161234567", "79161234567"),
        ("0079161234567", "79161234567"),
        ("+7 (916) 123-45-67", "79161234567"),
        ("whatsapp:+14155550100", "14155550100"),
        ("Mailing", ""),
        ("12345", ""),
        ("1" * 16, ""),
        ("٧٩١٦١٢٣٤٥٦٧", ""),
        ("", ""),
    ],
)
def test_phones_are_digits_however_they_are_written(given: str, digits: str) -> None:
    assert phone_of(given) == digits


def test_of_one_phone_the_last_word_holds() -> None:
    assert changes(("79161234567", "STOP"), (79161234568, " basta  YA!\n"), ("+79161234567", "Weiter")) == [
        ConsentChange("79161234567", False, "WEITER"),
        ConsentChange("79161234568", True, "BASTA YA"),
    ]


@pytest.mark.parametrize("text", [None, 5, [], "STOP STOP", "don't stop"])
def test_what_is_no_word_changes_nothing(text: object) -> None:
    assert changes(("79161234567", text)) == []


def test_an_own_word_may_take_a_usual_one_back() -> None:
    assert words_of([], ["END"])["end"] is False


@given(st.text())
def test_a_message_is_compared_without_raising(text: str) -> None:
    assert normal(normal(text)) == normal(text) or len(text) > len(normal(text))
