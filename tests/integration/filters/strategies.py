"""Filters made at random: mostly of few conditions, as one of many matches nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dispatcher.model.states import Status
from server.domain.filters import ORDERS, AttributeCondition, ClientFilter, MailingCondition, Op, check_filter
from server.domain.validation import Violations
from tests.integration.filters import model

VALUES = (*model.NUMBERS, *model.TIMES, *model.CITIES)
ASKED_MAILINGS = (*model.MAILINGS, model.DELETED, model.NEVER)
with_database = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def has_order(value: str) -> bool:
    violations = Violations()
    condition = AttributeCondition("age", Op.LESS, (value,))
    check_filter(ClientFilter(attribute_conditions=(condition,)), model.ZONES, "filter", violations)
    return not violations


ORDERED = tuple(filter(has_order, VALUES))


def single_conditions() -> Iterator[ClientFilter]:
    """Yield a filter for every way to compare an attribute with one value, and for every status of every mailing."""
    for op in Op:
        values = [()] if op in (Op.EXISTS, Op.MISSING) else [(one,) for one in (ORDERED if op in ORDERS else VALUES)]
        for name in model.NAMES:
            yield from (ClientFilter(attribute_conditions=(AttributeCondition(name, op, one),)) for one in values)
    for mailing in ASKED_MAILINGS:
        for status in Status:
            yield ClientFilter(only_mailings=(MailingCondition(mailing, (status,)),))
            yield ClientFilter(exclude_mailings=(MailingCondition(mailing, (status,)),))


def some(strategy: st.SearchStrategy[Any], most: int = 3, least: int = 1) -> st.SearchStrategy[Any]:
    return st.lists(strategy, min_size=least, max_size=most, unique_by=repr).map(tuple)


names, values = st.sampled_from(model.NAMES), st.sampled_from(VALUES)


def attribute_condition(op: Op) -> st.SearchStrategy[AttributeCondition]:
    chosen: st.SearchStrategy[Any] = some(values)
    if op in (Op.EXISTS, Op.MISSING):
        chosen = st.just(())
    elif op in ORDERS:
        chosen = st.tuples(st.sampled_from(ORDERED))
    return st.builds(AttributeCondition, names, st.just(op), chosen)


attribute_conditions = st.sampled_from(Op).flatmap(attribute_condition)
mailing_conditions = st.builds(
    MailingCondition, st.sampled_from(ASKED_MAILINGS), some(st.sampled_from(Status), least=0)
)


def filters(groups: st.SearchStrategy[ClientFilter] | None = None) -> st.SearchStrategy[ClientFilter]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "tags": some(st.sampled_from(model.TAGS)),
        "operator_codes": some(st.sampled_from(["903", "926"])),
        "timezones": some(st.sampled_from(model.ZONES)),
        "attributes": st.dictionaries(names, values, min_size=1, max_size=1),
        "client_ids": some(st.integers(10, 200), 20),
        "attribute_conditions": some(attribute_conditions, 2),
        "phone_prefixes": some(st.sampled_from(["7", "79", "7903", "44000", "1", "2"])),
        "created_since": st.integers(-1, 49).map(lambda hours: model.EPOCH + timedelta(hours=hours)),
        "exclude_mailings": some(mailing_conditions, 2),
        "only_mailings": some(mailing_conditions, 2),
    }
    if groups is not None:
        fields |= {"any_of": some(groups, 2), "none_of": some(groups, 2)}
    weighted = [*fields, *["attribute_conditions"] * 4, *(["any_of", "none_of"] * 3 if groups is not None else ())]
    chosen = st.sets(st.sampled_from(weighted), max_size=3)
    made = chosen.flatmap(lambda some_of: st.fixed_dictionaries({name: fields[name] for name in some_of}))
    return made.map(lambda these: ClientFilter(**these))


trees = filters(filters(filters()))
"""Groups of groups."""
