"""A mailing is shown and asked for before it is created, on a terminal as a person sees it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.builders import parse_moment
from mailing.cli.commands.mailing_creation import warnings
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse as Preview
from mailing.v1.message_pb2 import Message
from tests.support.terminal import terminal
from tests.unit.cli.conftest import Service

posix = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
NOW = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)  # a Friday

EXCLUDED = Preview.Exclusion(reason=Message.REASON_EMPTY_TEXT, count=3)
LONG = Preview.Sample(sms_segments=4)


@posix
@pytest.mark.parametrize(
    ("answers", "created"),
    [("n\n", []), ("\n", []), ("y\n", [Mailing.AUDIENCE_MODE_UNSPECIFIED])],
    ids=["no", "nothing", "yes"],
)
def test_nothing_is_created_before_it_was_agreed_to(service: Service, answers: str, created: list[int]) -> None:
    service.mailings.preview = Preview(audience_size=1234, samples=[Preview.Sample(text="Hi Ann")])
    with terminal("mailings", "create", "--text", "Hi", "--tag", "a", address=service.address) as screen:
        screen.shows("1,234")
        screen.shows("Hi Ann")
        screen.shows("Also to clients who are added later, until it ends?")
        screen.type("y\n")
        screen.shows("Send to 1,234 clients (also clients added later, until it is cancelled)?")
        assert not service.mailings.created
        screen.type(answers)
        assert screen.ended() == (0 if created else 130)
    assert [one.mailing.audience_mode for one in service.mailings.created] == created


@posix
def test_the_length_of_texts_that_are_not_shown_is_warned_of_too(service: Service) -> None:
    samples = [*(Preview.Sample(text=f"short {number}", sms_segments=1) for number in range(3)), LONG]
    service.mailings.preview = Preview(audience_size=4, sendable_before_end=4, samples=samples)
    with terminal("mailings", "create", "--text", "Hi", "--all", "--open", address=service.address) as screen:
        screen.shows("short 2")
        screen.shows("Warning: a message takes up to 4 SMS")
        screen.shows("Send to 4 clients")
        screen.type("n\n")
        assert screen.ended() == 130


@posix
def test_an_audience_that_is_fixed_is_said_so(service: Service) -> None:
    service.mailings.preview = Preview(audience_size=2)
    with terminal("mailings", "create", "--text", "Hi", "--all", "--snapshot", address=service.address) as screen:
        screen.shows("Send to 2 clients (as they are at the start)?")
        screen.type("y\n")
        assert screen.ended() == 0
    assert service.mailings.created[0].mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT


@pytest.mark.parametrize(
    ("start", "answer", "warning"),
    [
        (0, Preview(), "nobody gets it"),
        (-3600, Preview(audience_size=1, sendable_before_end=1), "its start lies in the past"),
        (0, Preview(audience_size=1, sendable_before_end=1, exclusions=[EXCLUDED]), "empty for 3 clients"),
        (0, Preview(audience_size=1, sendable_before_end=1, samples=[LONG]), "up to 4 SMS"),
        (0, Preview(audience_size=9, sendable_before_end=4), "only 4 of 9"),
        (3600, Preview(audience_size=9, sendable_before_end=9), None),
    ],
)
def test_what_is_most_likely_a_mistake_is_warned_of(start: int, answer: Preview, warning: str | None) -> None:
    mailing = Mailing(start_time=Timestamp(seconds=int(NOW.timestamp()) + start)) if start else Mailing()
    found = list(warnings(mailing, answer, NOW))
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


@pytest.mark.parametrize(
    ("text", "days", "clock"),
    [
        ("today 18:00", 0, "18:00"),
        ("Tomorrow 9:05", 1, "09:05"),
        ("friday 10:00", 7, "10:00"),
        ("sunday 0:00", 2, "00:00"),
    ],
)
def test_days_may_be_words(text: str, days: int, clock: str) -> None:
    found = parse_moment(text, NOW)
    assert (found.date(), f"{found:%H:%M}") == ((NOW.astimezone() + timedelta(days=days)).date(), clock)
