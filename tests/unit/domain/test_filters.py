"""Which trees of conditions are no filter: malformed, too large, or matching nobody whatever the clients are."""

from __future__ import annotations

import pytest

from dispatcher.model.states import Status
from server.domain.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    AttributeCondition,
    ClientFilter,
    MailingCondition,
    Op,
    Sample,
    check_filter,
)
from server.domain.validation import Violations

ZONES = {"Europe/Moscow"}
AT = "attribute_conditions"


def about(*conditions: tuple[Op, str], name: str = "age") -> ClientFilter:
    return ClientFilter(attribute_conditions=tuple(AttributeCondition(name, op, (value,)) for op, value in conditions))


def nested(depth: int) -> ClientFilter:
    chosen = ClientFilter(tags=("a",))
    for _ in range(depth):
        chosen = ClientFilter(none_of=(chosen,))
    return chosen


def violations_of(chosen: ClientFilter) -> dict[str, str]:
    violations = Violations()
    check_filter(chosen, ZONES, "filter", violations)
    return {one.path.removeprefix("filter").removeprefix("."): one.sentence for one in violations.found}


@pytest.mark.parametrize(
    ("chosen", "path", "sentence"),
    [
        (ClientFilter(phone_prefixes=("7903", "+7")), "phone_prefixes[1]", "1 to 15 digits"),
        (ClientFilter(phone_prefixes=("0",)), "phone_prefixes[0]", "the first not 0"),
        (ClientFilter(phone_prefixes=("1",) * 1001), "phone_prefixes", "at most 1,000 entries"),
        (ClientFilter(segment="two words"), "segment", "1 to 100 letters"),
        (about((Op.IN, "a"), name=""), f"{AT}[0].name", "is required"),
        (ClientFilter(attribute_conditions=(AttributeCondition("a"),)), f"{AT}[0].values", "is required"),
        (about((Op.EXISTS, "a")), f"{AT}[0].values", "must be empty for EXISTS"),
        (about((Op.LESS, "old")), f"{AT}[0].values[0]", "texts have no order"),
        (about((Op.LESS, "2026-02-29")), f"{AT}[0].values[0]", "must be a number, a date"),
        (about((Op.LESS, "2026-02-01 10:00:00")), f"{AT}[0].values[0]", "must be a number, a date"),
        (about((Op.IN, "a\0")), f"{AT}[0].values[0]", "NUL"),
        (
            ClientFilter(attribute_conditions=(AttributeCondition("a", Op.LESS, ("1", "2")),)),
            f"{AT}[0].values",
            "exactly one",
        ),
        (ClientFilter(exclude_mailings=(MailingCondition(0),)), "exclude_mailings[0].mailing_id", "is required"),
        (ClientFilter(only_mailings=(MailingCondition(1),) * 21), "only_mailings", "at most 20 entries"),
        (ClientFilter(any_of=(ClientFilter(tags=("a",)),) * 21), "any_of", "at most 20 entries"),
        (ClientFilter(sample=Sample(0)), "sample.size", "at least 1"),
        (ClientFilter(any_of=(ClientFilter(sample=Sample(1)),)), "any_of[0].sample", "outermost"),
        (ClientFilter(any_of=(ClientFilter(timezones=("Mars",)),)), "any_of[0].timezones[0]", "is not a time zone"),
        (ClientFilter(none_of=(ClientFilter(),)), "none_of[0]", "nobody is left"),
        (about((Op.LESS, "3"), (Op.GREATER, "2026-01-01")), AT, "a number and with a time"),
        (about((Op.LESS, "3"), (Op.GREATER, "3")), AT, "between these bounds"),
        (about((Op.LESS_OR_EQUAL, "3"), (Op.GREATER, "3.0")), AT, "between these bounds"),
        (about((Op.LESS, "2026-01-01T03:00:00+03:00"), (Op.GREATER, "2026-01-01")), AT, "between these bounds"),
        (about((Op.IN, "a"), (Op.IN, "b")), AT, "all of these lists"),
        (about((Op.IN, "a"), (Op.NOT_IN, "a")), AT, "all of these lists"),
        (
            ClientFilter(attributes={"a": "x"}, attribute_conditions=(AttributeCondition("a", Op.IN, ("y",)),)),
            AT,
            "all of these lists",
        ),
        (
            ClientFilter(attributes={"a": "x"}, attribute_conditions=(AttributeCondition("a", Op.MISSING),)),
            AT,
            "cannot be missing and have a value",
        ),
        (
            ClientFilter(
                only_mailings=(MailingCondition(3),),
                exclude_mailings=(MailingCondition(3, (Status.DELIVERED, Status.FAILED)),),
            ),
            "only_mailings[0]",
            "exclude_mailings has it, too",
        ),
        (nested(MAX_DEPTH + 1), ".".join(["none_of[0]"] * (MAX_DEPTH + 1)), "more than 5 deep"),
        (
            about(*[(Op.NOT_IN, str(n)) for n in range(MAX_CONDITIONS + 1)]),
            "",
            "at most 100 conditions in all, not 101",
        ),
        (
            ClientFilter(any_of=tuple(ClientFilter(any_of=(ClientFilter(tags=("a",)),) * 20) for _ in range(20))),
            "",
            "at most 100 conditions",
        ),
        (ClientFilter(any_of=(ClientFilter(),) * 101), "", "at most 100 conditions"),
        (
            ClientFilter(any_of=(ClientFilter(client_ids=tuple(range(10_000))),) * 3),
            "",
            "at most 20,000 values in all, not 30,000",
        ),
    ],
)
def test_what_is_no_filter_is_reported_with_its_path(chosen: ClientFilter, path: str, sentence: str) -> None:
    found = violations_of(chosen)
    assert list(found) == [path]
    assert sentence in found[path]


@pytest.mark.parametrize(
    "chosen",
    [
        ClientFilter(),
        nested(MAX_DEPTH),
        about((Op.LESS_OR_EQUAL, "3"), (Op.GREATER_OR_EQUAL, "3")),
        about((Op.GREATER, "3"), (Op.LESS, "4"), (Op.NOT_IN, "3.5")),
        about((Op.GREATER, "2026-01-01"), (Op.LESS, "2026-01-01T00:00:01Z")),
        about((Op.LESS, "9999-12-31T23:59:59-15:00"), (Op.GREATER, "0001-01-01T00:00:00+15:00")),
        ClientFilter(any_of=(ClientFilter(),)),
        ClientFilter(
            only_mailings=(MailingCondition(3, (Status.DELIVERED, Status.FAILED)),),
            exclude_mailings=(MailingCondition(3),),
        ),
        about(*[(Op.NOT_IN, str(n)) for n in range(MAX_CONDITIONS)]),
    ],
)
def test_what_somebody_may_match_is_a_filter(chosen: ClientFilter) -> None:
    assert violations_of(chosen) == {}
