"""A rendered text is checked for the client who would get it, and what is too long is never made."""

from __future__ import annotations

import tracemalloc

import pytest

from dispatcher.model.sms import sms_length
from dispatcher.model.states import Reason
from dispatcher.model.templates import parse
from dispatcher.model.texts import TextRenderer

ANNA = ("79261234567", "926", "news", "Europe/Moscow")


def rendered(text: str, attributes: dict[str, str], segments: int = 128) -> tuple[str, Reason]:
    return TextRenderer(parse(text), segments)(*ANNA, attributes)[:2]


@pytest.mark.parametrize(
    ("text", "attributes"), [("{attributes.x}", {}), ("{attributes.x}", {"x": ""}), (" {attributes.x|\n} ", {"x": " "})]
)
def test_a_text_without_anything_to_read_is_empty(text: str, attributes: dict[str, str]) -> None:
    assert rendered(text, attributes) == ("", Reason.EMPTY_TEXT)


def test_an_empty_attribute_has_the_default() -> None:
    assert rendered("Dear {attributes.x|client}", {"x": ""}) == ("Dear client", Reason.NONE)


@pytest.mark.parametrize("character", ["a", "€", "я", "😀"])
@pytest.mark.parametrize("segments", [1, 2, 7])
def test_the_limit_in_segments_is_exact(character: str, segments: int) -> None:
    fits = max(n for n in range(1, 1200) if sms_length(character * n).segments <= segments)
    assert rendered("{attributes.x}", {"x": character * fits}, segments) == (character * fits, Reason.NONE)
    assert rendered("{attributes.x}", {"x": character * (fits + 1)}, segments) == ("", Reason.TOO_LONG)
    assert rendered(character * (fits + 1), {}, segments) == ("", Reason.TOO_LONG)


def test_whatever_may_be_written_without_placeholders_passes_by_default() -> None:
    assert rendered("😀" * 4000, {})[1] is Reason.NONE


@pytest.mark.parametrize("text", ["Hello {phone}", "{tag}: 100% {phone} {timezone}{phone}", "the same"])
def test_texts_made_at_once_are_those_made_one_by_one(text: str) -> None:
    render = TextRenderer(parse(text), 128)
    clients = [ANNA, ("79031234567", "903", "%s {tag}", "Asia/Omsk")]
    one_by_one = [render(*client, {}) for client in clients]
    assert render.all_texts(list(zip(*clients, strict=True))) == [one.text for one in one_by_one]
    assert {one.reason for one in one_by_one} == {Reason.NONE}


@pytest.mark.parametrize(("text", "segments"), [("{attributes.a}", 128), ("{phone}", 1), ("  ", 128)])
def test_texts_that_may_not_be_sent_to_all_are_not_made_at_once(text: str, segments: int) -> None:
    assert TextRenderer(parse(text), segments).all_texts([[field] for field in ANNA]) is None


def test_what_is_too_long_takes_no_memory() -> None:
    template = "{attributes.long}" * 235  # 3,995 characters, which would become 235,000
    render, attributes = TextRenderer(parse(template), 128), {"long": "я" * 1000}
    tracemalloc.start()
    try:
        assert render(*ANNA, attributes)[:2] == ("", Reason.TOO_LONG)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_the_length_is_known_before_the_text_is_made() -> None:
    template = parse("{{%}} {tag}{attributes.a|none}{attributes.b}{phone}")
    for attributes in ({}, {"a": "", "b": "x"}, {"a": "%s", "b": ""}):
        assert template.length(*ANNA, attributes) == len(template.render(*ANNA, attributes))
