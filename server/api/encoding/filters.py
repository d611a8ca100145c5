"""Filters ↔ their messages. Paths of violations are those of the request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.states import Status
from mailing.v1 import client_pb2, message_pb2
from server.api.encoding.wellknown import number_of, numbers_of, time_of, timestamp
from server.domain.clients import normal_tag
from server.domain.filter_text import parse_filter
from server.domain.filters import AttributeCondition, ClientFilter, MailingCondition, Op, Sample, check_filter
from server.domain.validation import Violations, invalid

_Filter = client_pb2.ClientFilter


_TEXTS = frozenset({"filter_text", "mailing.filter_text"})
"""The paths of filters as text, in masks of mailings, segments and schedules."""


class _Filtered(Protocol):
    """A request or a resource with a filter and, in its place, a text."""

    filter_text: str

    @property
    def filter(self) -> client_pb2.ClientFilter: ...


def read_filter_text(message: _Filtered, path: str = "") -> None:
    """Put the filter that a message has as text in place of the text. Raise InvalidFilter, InvalidFields for both."""
    if not message.filter_text:
        return
    if message.filter.ListFields():
        raise invalid(f"{path}filter_text", "must not be given together with filter: one of them chooses the clients")
    message.filter.CopyFrom(_message(parse_filter(message.filter_text, f"{path}filter_text")))
    message.filter_text = ""


def mask_without_text(mask: FieldMask) -> FieldMask:
    """Return the mask with `filter` where it names `filter_text`."""
    return FieldMask(paths=[path.removesuffix("_text") if path in _TEXTS else path for path in mask.paths])


def checked_filter(message: _Filtered, zones: Collection[str], violations: Violations) -> ClientFilter:
    """Return the filter of a request. Raise InvalidFields for it and for earlier violations, InvalidFilter."""
    read_filter_text(message)
    chosen = filter_of(message.filter, "filter", violations)
    check_filter(chosen, zones, "filter", violations)
    violations.check()
    return chosen


def filter_of(message: client_pb2.ClientFilter, path: str, violations: Violations) -> ClientFilter:
    """Return the filter, unchecked; report what cannot be converted."""

    def groups(name: str, inner: Sequence[client_pb2.ClientFilter]) -> tuple[ClientFilter, ...]:
        return tuple(filter_of(one, f"{path}.{name}[{index}]", violations) for index, one in enumerate(inner))

    return ClientFilter(
        tags=tuple(dict.fromkeys(map(normal_tag, message.tags))),
        operator_codes=tuple(message.operator_codes),
        timezones=tuple(message.timezones),
        attributes=dict(message.attributes),
        client_ids=tuple(message.client_ids),
        attribute_conditions=_attributes_of(message, path, violations),
        any_of=groups("any_of", message.any_of),
        none_of=groups("none_of", message.none_of),
        phone_prefixes=tuple(dict.fromkeys(message.phone_prefixes)),
        created_since=_since_of(message, path, violations),
        exclude_mailings=_mailings_of(message.exclude_mailings, f"{path}.exclude_mailings", violations),
        only_mailings=_mailings_of(message.only_mailings, f"{path}.only_mailings", violations),
        sample=Sample(message.sample.size, message.sample.seed) if message.HasField("sample") else None,
        segment=message.segment,
    )


def _since_of(message: client_pb2.ClientFilter, path: str, violations: Violations) -> datetime | None:
    if not message.HasField("created_since"):
        return None
    return time_of(message.created_since, f"{path}.created_since", violations)


def _attributes_of(
    message: client_pb2.ClientFilter, path: str, violations: Violations
) -> tuple[AttributeCondition, ...]:
    def one(condition: client_pb2.ClientFilter.AttributeCondition, at: str) -> AttributeCondition:
        op = number_of(Op, condition.op or Op.IN, f"{at}.op", violations) or Op.IN
        return AttributeCondition(condition.name, op, tuple(dict.fromkeys(condition.values)))

    each = enumerate(message.attribute_conditions)
    return tuple(one(condition, f"{path}.attribute_conditions[{index}]") for index, condition in each)


def _mailings_of(
    conditions: Sequence[client_pb2.ClientFilter.MailingCondition], path: str, violations: Violations
) -> tuple[MailingCondition, ...]:
    return tuple(
        MailingCondition(one.mailing_id, numbers_of(Status, one.statuses, f"{path}[{index}].statuses", violations))
        for index, one in enumerate(conditions)
    )


def filter_message(chosen: ClientFilter) -> client_pb2.ClientFilter | None:
    """Return the filter as its message; None for the one that matches everybody."""
    return None if chosen.empty else _message(chosen)


def _message(chosen: ClientFilter) -> client_pb2.ClientFilter:
    sample = chosen.sample
    return _Filter(
        tags=chosen.tags,
        operator_codes=chosen.operator_codes,
        timezones=chosen.timezones,
        attributes=chosen.attributes,
        client_ids=chosen.client_ids,
        attribute_conditions=map(_attribute_message, chosen.attribute_conditions),
        any_of=map(_message, chosen.any_of),
        none_of=map(_message, chosen.none_of),
        phone_prefixes=chosen.phone_prefixes,
        created_since=timestamp(chosen.created_since),
        exclude_mailings=map(_mailing_message, chosen.exclude_mailings),
        only_mailings=map(_mailing_message, chosen.only_mailings),
        sample=None if sample is None else _Filter.Sample(size=sample.size, seed=sample.seed),
        segment=chosen.segment,
    )


def _attribute_message(condition: AttributeCondition) -> client_pb2.ClientFilter.AttributeCondition:
    op = _Filter.AttributeCondition.Op.ValueType(condition.op)
    return _Filter.AttributeCondition(name=condition.name, op=op, values=condition.values)


def _mailing_message(condition: MailingCondition) -> client_pb2.ClientFilter.MailingCondition:
    statuses = map(message_pb2.Message.Status.ValueType, condition.statuses)
    return _Filter.MailingCondition(mailing_id=condition.mailing_id, statuses=statuses)
