"""Protobuf's own types ↔ Python's. What cannot be converted is reported, not raised."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import blake2b
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from server.domain.validation import Violations, request_id
from server.storage.request_ids import CreatingCall

Number = TypeVar("Number", bound=IntEnum)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62_104_060_800, 253_370_764_799
"""Seconds from the epoch to the beginning of year 2 and to the end of year 9998: the outermost
years of Python's calendar stand for infinity on the way to the database."""

_LONGEST_SPAN = 315_576_000_000
"""Seconds: the range of google.protobuf.Duration."""


def populated(message: ProtoMessage) -> list[str]:
    """Return the names of the fields that are set."""
    return [descriptor.name for descriptor, _ in message.ListFields()]


def reject_output_only(message: ProtoMessage, names: Sequence[str], path: str, violations: Violations) -> None:
    """Report each of the output-only fields `names` that is set."""
    for name in populated(message):
        if name in names:
            violations.add(f"{path}.{name}", "is output only: leave it out")


def time_of(value: Timestamp, path: str, violations: Violations) -> datetime | None:
    """Return the moment, cut to microseconds; report one that no calendar has."""
    if not (_EARLIEST <= value.seconds <= _LATEST and 0 <= value.nanos < 1_000_000_000):
        violations.add(path, "is not a time between the years 2 and 9998")
        return None
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def span_of(value: Duration, path: str, violations: Violations) -> timedelta | None:
    """Return the span; report one that is out of range or finer than microseconds."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) > _LONGEST_SPAN or abs(nanos) >= 1_000_000_000 or seconds * nanos < 0:
        violations.add(path, "is not a valid duration")
        return None
    if nanos % 1000:
        violations.add(path, "must not be finer than microseconds")
        return None
    return timedelta(seconds=seconds, microseconds=nanos // 1000)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the moment for a message; None leaves the field unset."""
    if moment is None:
        return None
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000)


def duration(span: timedelta | None) -> Duration | None:
    """Return the span, not negative, for a message; None leaves the field unset."""
    if span is None:
        return None
    return Duration(seconds=span.days * 86400 + span.seconds, nanos=span.microseconds * 1000)


def number_of(kind: type[Number], value: int, path: str, violations: Violations) -> Number | None:
    """Return the enum's value; report an unknown number, and 0 where it is none."""
    try:
        return kind(value)
    except ValueError:
        violations.add(path, f"has no value {value}")
        return None


def numbers_of(kind: type[Number], values: Sequence[int], path: str, violations: Violations) -> tuple[Number, ...]:
    """Return the enum's values in their order, each once; report unknown ones."""
    found = {number_of(kind, value, f"{path}[{index}]", violations) for index, value in enumerate(values)}
    return tuple(sorted(number for number in found if number is not None))


def creating_call(method: str, id_text: str, body: ProtoMessage, violations: Violations) -> CreatingCall | None:
    """Return the call's identity, None when the caller chose none; report what is no UUID."""
    chosen = request_id(id_text, violations)
    if chosen is None:
        return None
    return CreatingCall(method, chosen, blake2b(body.SerializeToString(deterministic=True), digest_size=16).digest())
