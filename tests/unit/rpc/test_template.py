"""The language of texts: what renders, and where a bad text is bad."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.template import TemplateError, parse

ANNA = ("79261234567", "926", "gold", "Europe/Moscow")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Hello", "Hello"),
        ("{tag}", "gold"),
        ("{phone}/{operator_code}/{tag}/{timezone}", "79261234567/926/gold/Europe/Moscow"),
        ("Dear {attributes.name}!", "Dear Anna!"),
        ("Dear {attributes.name|friend}!", "Dear Anna!"),
        ("Dear {attributes.nick|friend}!", "Dear friend!"),
        ("Dear {attributes.nick}!", "Dear !"),
        ("Dear {attributes.nick|}!", "Dear !"),
        ("{attributes.nick|my dear | 100%}", "my dear | 100%"),
        ("{{tag}} {tag} {{", "{tag} gold {"),
        ("{{{tag}}}", "{gold}"),
        ("100% {tag} %s", "100% gold %s"),
        ("{tag}{attributes.name}{tag}", "goldAnnagold"),
    ],
)
def test_a_text_renders_with_the_values_of_the_client(text: str, rendered: str) -> None:
    assert parse(text).render(*ANNA, {"name": "Anna"}) == rendered


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("Hi {name}", 4),
        ("{", 1),
        ("Hi {tag", 4),
        ("{tag {phone}}", 1),
        ("a } b", 3),
        ("{}", 1),
        ("{attributes.}", 1),
        ("{attributes.a b}", 1),
        ("{tag|x}", 1),
        ("{TAG}", 1),
        ("{attributes." + "n" * 65 + "}", 1),
    ],
)
def test_a_bad_placeholder_is_named_by_its_position(text: str, position: int) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert caught.value.position == position
    assert str(caught.value).endswith(f"at character {position}")


def test_values_are_never_read_as_placeholders() -> None:
    assert parse("{tag}").render("7", "", "{phone} %s", "UTC", {}) == "{phone} %s"


def test_a_template_tells_what_it_needs() -> None:
    assert parse("Hello {{x}}").is_constant
    assert not parse("{tag}").is_constant
    assert not parse("{tag}").needs_attributes
    assert parse("{attributes.name}").needs_attributes


@given(st.text())
def test_doubled_braces_give_any_text_back(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert parse(doubled).render(*ANNA, {}) == text


@given(st.text(alphabet="{}|.atg ", max_size=30))
def test_every_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        parse(text).render(*ANNA, {})
    except TemplateError as error:
        assert 1 <= error.position <= len(text)  # noqa: PT017  most texts raise nothing
