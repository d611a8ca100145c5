"""Filters as text: what is read, what is refused and where, and the one normal form that is written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatcher.model.states import Status
from server.domain.errors import InvalidFilter
from server.domain.filter_text import MAX_TEXT, parse_filter, text_of
from server.domain.filters import AttributeCondition, ClientFilter, MailingCondition, Op, Sample


def about(name: str, op: Op, *values: str) -> ClientFilter:
    return ClientFilter(attribute_conditions=(AttributeCondition(name, op, values),))


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
ENDED_BADLY = MailingCondition(17, (Status.FAILED, Status.EXPIRED))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('tag = "vip"', ClientFilter(tags=("vip",))),
        ("tag = vip OR tag = 'gold'", ClientFilter(tags=("gold", "vip"))),
        ('tag != "vip"', ClientFilter(none_of=(ClientFilter(tags=("vip",)),))),
        ("operator_code = 903", ClientFilter(operator_codes=("903",))),
        ("timezone = Europe/Moscow", ClientFilter(timezones=("Europe/Moscow",))),
        ("id = 7 OR id = 3", ClientFilter(client_ids=(3, 7))),
        ("id:*", ClientFilter()),
        ("phone = 7903*", ClientFilter(phone_prefixes=("7903",))),
        ("create_time >= 2026-01-01", ClientFilter(created_since=NEW_YEAR)),
        ("create_time < '2026-01-01T03:00:00+03:00'", ClientFilter(none_of=(ClientFilter(created_since=NEW_YEAR),))),
        ("segment = vip", ClientFilter(segment="vip")),
        ("attributes.age >= 30", about("age", Op.GREATER_OR_EQUAL, "30")),
        ('attributes.c = "Mo*"', about("c", Op.PREFIX, "Mo")),
        ("attributes.c != Mo*", about("c", Op.NOT_PREFIX, "Mo")),
        (r'attributes.c = "\*\"\\"', about("c", Op.IN, '*"\\')),
        ("attributes.c = a OR attributes.c = b", about("c", Op.IN, "a", "b")),
        ("attributes.c:*", about("c", Op.EXISTS)),
        ("NOT attributes.c:*", about("c", Op.MISSING)),
        ("got(17)", ClientFilter(only_mailings=(MailingCondition(17),))),
        ("-got(17, FAILED, EXPIRED)", ClientFilter(exclude_mailings=(ENDED_BADLY,))),
        ("tag = a AND sample(100, -7)", ClientFilter(tags=("a",), sample=Sample(100, -7))),
        ("tag = a OR id = 3", ClientFilter(any_of=(ClientFilter(client_ids=(3,)), ClientFilter(tags=("a",))))),
        ("NOT (tag = a AND id = 3)", ClientFilter(none_of=(ClientFilter(tags=("a",), client_ids=(3,)),))),
        ("((tag = a))  AND\n(id = 3)", ClientFilter(tags=("a",), client_ids=(3,))),
    ],
)  # fmt: skip
def test_a_text_is_read_as_the_filter_it_says(text: str, wanted: ClientFilter) -> None:
    assert parse_filter(text, "filter_text") == wanted


@pytest.mark.parametrize(
    ("text", "position", "sentence"),
    [
        ("tag = a OR tag = b AND id = 3", 19, "AND and OR meet here: put parentheses around one of them"),
        ("tag = a AND id = 3 OR id = 4", 19, "AND and OR meet here"),
        ('tag == "x"', 5, "did not expect '='"),
        ("colour = red", 0, "there is no field 'colour'; there are tag, operator_code"),
        ('tag = "vip', 6, "this quotation mark is never closed"),
        ("tag = a and id = 3", 8, "write AND in capital letters"),
        ("tag = a id = 3", 8, "did not expect 'id'"),
        ("attributes.age > old", 17, "> compares with a number, a date such as 2026-11-29"),
        ("attributes.age:3", 15, "expected *"),
        ("tag > a", 4, "this field is compared with = or !="),
        ("tag = a*", 6, "only phone and attributes"),
        ('tag = "a*b"', 6, "a * is possible at the end only"),
        ("phone = 79031234567", 8, 'write phone = "7903*"'),
        ("create_time > 2026-01-01", 12, "create_time is compared with >= or <"),
        ("create_time >= 2026-02-30", 15, "expected a date"),
        ("got(17, READ)", 8, "there is no status 'READ'"),
        ("got(seventeen)", 4, "expected a whole number"),
        ("got()", 0, "expected got(MAILING)"),
        ("tag = a AND tag = b", 18, "nobody matches"),
        ("tag = a OR sample(3)", 11, "a sample is taken of the whole"),
        ("sample(3) AND sample(4)", 14, "a sample can be taken once only"),
        ("(tag = a", 8, "the text ends in the middle"),
        (" ", 1, "the text ends in the middle"),
        ("tag = a ~", 8, "did not expect '~'"),
        ("NOT (" * 30 + "tag = a" + ")" * 30, 156, "is nested more than 20 deep"),
        ("x" * (MAX_TEXT + 1), MAX_TEXT, "must have at most 4,000 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text: str, position: int, sentence: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(text, "mailing.filter_text")
    error = caught.value
    assert error.facts == {"position": str(position)}
    assert sentence in str(error)
    (violation,) = error.violations
    assert violation.path == "mailing.filter_text"
    first, shown, mark = str(error).split("\n")
    assert first.endswith(f"at character {position + 1}:")
    assert len(mark) <= len(shown) + 1 <= 125
    assert mark.strip() == "^"
    if position < len(text.rstrip()):
        assert shown[mark.index("^")] == text[position]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("tag = b OR tag = a OR tag = b", 'tag = "a" OR tag = "b"'),
        ("id = 3 AND (tag = a AND segment = vip)", 'id = 3 AND segment = "vip" AND tag = "a"'),
        ("NOT (NOT tag = a)", 'tag = "a"'),
        ("NOT (NOT tag = a AND NOT id = 3)", 'id = 3 OR tag = "a"'),
        ("(tag = a OR id = 3) AND (tag = b OR id = 4)", '(id = 3 OR tag = "a") AND (id = 4 OR tag = "b")'),
        ("got(5, DELIVERED)", "got(5)"),
        (
            "attributes.b >= '2026-01-01' AND attributes.a != x",
            'NOT attributes.a = "x" AND attributes.b >= "2026-01-01"',
        ),
        (r'attributes.a = "\*\"*"', r'attributes.a = "\*\"*"'),
        ("create_time >= 2026-01-01 AND id:*", 'create_time >= "2026-01-01T00:00:00Z"'),
        ("sample(5, 0)", "sample(5)"),
        ("id:*", ""),
    ],
)  # fmt: skip
def test_there_is_one_normal_text(text: str, normal: str) -> None:
    assert text_of(parse_filter(text, "filter_text")) == normal


def test_a_group_that_matches_everybody_is_written_and_read() -> None:
    chosen = ClientFilter(any_of=(ClientFilter(), ClientFilter(tags=("a",))))
    assert text_of(chosen) == 'id:* OR tag = "a"'
    assert parse_filter(text_of(chosen), "filter_text") == chosen


def test_a_text_with_parentheses_to_the_limit_is_read() -> None:
    """Fails with a parser or a walk that needs a frame of the stack for each."""
    half = (MAX_TEXT - 7) // 2
    assert parse_filter("(" * half + "tag = a" + ")" * half, "filter_text") == ClientFilter(tags=("a",))
