"""The language of texts: what renders, and where a bad text is bad."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.templates import TemplateError, parse

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
        ("Hi {attributes.name|{tag}}", 4),
        ("{attributes.name|a}b}", 21),
        ("{attributes.name|unclosed", 1),
        ("{attributes}", 1),
        ("{ tag}", 1),
        ("привет 😀 {nobody}", 10),
    ],
)
def test_a_bad_placeholder_is_named_by_its_position(text: str, position: int) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert caught.value.position == position
    assert f" at character {position} (" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "without a name"),
        ("{name}", "unknown placeholder {name} at character 1 (there are {tag}, {phone}"),
        ("Hi {tag", "not closed at character 4 (write '{{'"),
        ("{attributes.name|{tag}}", "with a '{' inside"),
        ("}", "write '}}'"),
    ],
)
def test_a_bad_text_is_told_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{phone.__class__}",
        "{phone.__class__.__mro__}",
        "{phone!r}",
        "{phone:>1000000000}",
        "{phone[0]}",
        "{0}",
        "{self}",
        "{attributes[name]}",
        "{attributes.__class__.__init__}",
        "{__import__('os')}",
        "{attributes.name!r}",
        "{attributes.name:x}",
    ],
)
def test_what_a_format_language_would_evaluate_is_an_unknown_placeholder(text: str) -> None:
    """Fails when the text is rendered by `str.format`, for which most of these are valid."""
    with pytest.raises(TemplateError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["%s %d %(phone)s %n %", "%1000000000d", "${phone}{{", "$tag `id` <%= 1 %>", "{{phone.__class__}}", "\x00\u0041"],
)
def test_other_languages_mean_nothing(text: str) -> None:
    assert (
        parse(text + "{tag}").render(*ANNA, {})
        == text.replace("{{", "{").replace("}}", "}").replace("${phone}", "$79261234567") + "gold"
    )


def test_an_attribute_is_looked_up_and_nothing_else() -> None:
    assert parse("{attributes.__class__}{attributes.keys|none}").render(*ANNA, {}) == "none"
    assert parse("{attributes.name|%s %(tag)s}").render(*ANNA, {}) == "%s %(tag)s"


def test_values_are_never_read_as_placeholders() -> None:
    assert parse("{tag}").render("7", "", "{phone} %s", "UTC", {}) == "{phone} %s"
    assert parse("{attributes.a}%").render(*ANNA, {"a": "{attributes.a}%s"}) == "{attributes.a}%s%"


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
