"""Reasons and error classes have one name in the contract and one word for it on every screen, in logs and in pages."""

from __future__ import annotations

import re

import pytest

from dispatcher.model.states import ErrorClass, Reason
from dispatcher.model.words import ERROR_WORDS, REASON_WORDS
from mailing.cli.terminal.words import error_words, reason_words
from mailing.v1.message_pb2 import Attempt, Message
from server.console.words import ERROR_CLASSES, REASONS
from tests.support.documents import page, section

GLOSSARY = section(page("glossary"), "## Reasons and error classes")


def words(heading: str) -> dict[str, str]:
    """Return names and their words from a table of the glossary."""
    rows = GLOSSARY.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", rows, re.MULTILINE))


REASON_TABLE = words("Reasons of messages:")
CLASS_TABLE = words("Error classes of attempts:")


def names(enum: object, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name, number in enum.items() if number}  # type: ignore[attr-defined]


def test_the_glossary_has_every_name_of_the_contract() -> None:
    assert REASON_TABLE.keys() == names(Message.Reason, "REASON_")
    assert CLASS_TABLE.keys() == names(Attempt.ErrorClass, "ERROR_CLASS_")


def test_the_engine_has_the_same_words() -> None:
    assert REASON_WORDS == REASON_TABLE
    assert ERROR_WORDS == CLASS_TABLE
    assert {one.name for one in Reason if one} <= REASON_TABLE.keys()
    assert {one.name for one in ErrorClass if one} <= CLASS_TABLE.keys()


def test_the_command_line_has_the_same_words() -> None:
    assert {name: reason_words(name) for name in REASON_TABLE} == REASON_TABLE
    assert {name: error_words(name) for name in CLASS_TABLE} == CLASS_TABLE


def test_the_console_has_the_same_words() -> None:
    of_reasons = {Message.Reason.Name(number).removeprefix("REASON_"): text for number, text in REASONS.items()}
    of_classes = {
        Attempt.ErrorClass.Name(number).removeprefix("ERROR_CLASS_"): text for number, text in ERROR_CLASSES.items()
    }
    assert of_reasons == {name: text[0].upper() + text[1:] for name, text in REASON_TABLE.items()}
    assert of_classes == CLASS_TABLE


@pytest.mark.parametrize("number", [Attempt.ERROR_CLASS_REFUSED, Attempt.ERROR_CLASS_REJECTED])
def test_what_is_not_accepted_is_refused_as_its_message_is(number: int) -> None:
    """Fails when an attempt is called otherwise than the message that it ends."""
    name = Attempt.ErrorClass.Name(number).removeprefix("ERROR_CLASS_")  # type: ignore[arg-type]
    assert CLASS_TABLE[name] == "refused"
    assert REASON_TABLE["REFUSED"].startswith("refused")
