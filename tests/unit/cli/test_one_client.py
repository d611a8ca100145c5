"""One client on the command line: how they are named, what is changed, and the lines of their story."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.cli.terminal.spreadsheet import harmless, write_rows
from mailing.cli.terminal.story_view import drawn, story_lines
from mailing.cli.terminal.words import attempt_words, outcome
from mailing.v1.client_service_pb2 import GetClientStoryResponse
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.message_pb2 import Attempt, Message
from tests.unit.cli.conftest import Run, Service

Part = GetClientStoryResponse.Part


def at(minute: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime(2026, 11, 29, 10, minute, tzinfo=UTC))
    return moment


@pytest.mark.parametrize("arguments", [(), ("79161234567", "--id", "27")])
def test_a_client_is_named_once(run: Run, arguments: tuple[str, ...]) -> None:
    status, _, err = run("clients", "opt-out", *arguments)
    assert status == 2
    assert "one of them names the client" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("get", "8 916 123-45-67"), "is a national number"),
        (("get", "1", "--country", "XX"), "'XX' is no country"),
        (("update", "79161234567"), "nothing to change is given"),
        (("update", "79161234567", "--window", "9 to 5"), "is not a window such as 09:00-21:00"),
        (("add", "8 916 123-45-67", "--timezone", "UTC"), "is a national number"),
        (("add", "12", "--timezone", "UTC", "--country", "RU"), "is no number of RU"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run("clients", *arguments)
    assert (status, out) == (2, "")
    assert sentence in err


def test_every_command_that_takes_a_phone_takes_a_national_one(run: Run, service: Service) -> None:
    """Fails where the advice to repeat with --country cannot be followed."""
    assert run("clients", "add", "8 916 123-45-67", "--country", "RU", "--timezone", "UTC").status == 0
    assert [one.phone for one in service.clients.stored] == ["79161234567"]
    for command in ("clients get", "clients update", "clients opt-out", "clients delete", "story", "test"):
        assert "--country" in run(*command.split(), "--help").out, command
    assert "--country" in run("messages", "list", "--help").out


def test_a_story_is_in_the_order_of_time_attempts_below_messages() -> None:
    refused = Attempt(number=1, time=at(6), error_class=Attempt.ERROR_CLASS_REJECTED, endpoint_status=200)
    refused.endpoint_code = 21614
    refused.response_excerpt = "not a\nmobile number"
    failed = Message(mailing_id=2, status=Message.STATUS_FAILED, reason=Message.REASON_REFUSED, attempts=1)
    failed.settle_time.CopyFrom(at(7))
    read = Message(mailing_id=1, status=Message.STATUS_DELIVERED, receipt=Message.RECEIPT_READ, attempts=1)
    read.settle_time.CopyFrom(at(1))
    read.receipt_time.CopyFrom(at(2))
    opted = LogEntry(time=at(3), text="The client opted out.", principal="token:ops", details={"source": "api"})
    page = GetClientStoryResponse(
        parts=[Part(message=failed, mailing_title="Sale", endpoint="sms", attempts=[refused]), Part(message=read)],
        events=[opted],
    )
    lines = list(story_lines([page]))
    assert [line.text for line in lines] == [
        "mailing 1: delivered, 1 attempt at ",
        "receipt: read",
        "The client opted out (by token:ops, api)",
        "mailing 2 'Sale': failed: refused by the gateway, 1 attempt at sms",
        "attempt 1: refused (HTTP 200, code 21614): not a mobile number",
    ]
    assert [line.below for line in lines] == [False, True, False, False, True]
    assert drawn(lines[4]).plain.startswith("    ")


def test_a_refusal_has_one_word_whatever_it_was_told_by() -> None:
    """Fails when an attempt is rejected whose message is refused."""
    for kind in (Attempt.ERROR_CLASS_REFUSED, Attempt.ERROR_CLASS_REJECTED):
        assert attempt_words(Attempt(error_class=kind)) == "refused"
    assert (
        outcome(Message(status=Message.STATUS_FAILED, reason=Message.REASON_REFUSED))
        == "failed: refused by the gateway"
    )
    for reason in Message.Reason.values():
        assert "_" not in outcome(Message(status=Message.STATUS_FAILED, reason=reason))
    for error_class in Attempt.ErrorClass.values():
        assert "_" not in attempt_words(Attempt(error_class=error_class))


@pytest.mark.parametrize("value", ["=1+1", "+7", "-2.5", "@x", "\tx", "79161234567", ""])
def test_no_cell_is_run_by_a_spreadsheet(value: str) -> None:
    dangerous = value.startswith(("=", "@", "\t"))
    assert harmless(value) == (f"'{value}" if dangerous else value)
    out = io.StringIO()
    write_rows(out, ["a"], [[value]], raw=True)
    assert "'" not in out.getvalue()


def test_an_unknown_command_is_found_where_it_is(run: Run) -> None:
    assert "Did you mean 'mailing attempts'?" in run("messages", "attempts", "5").err
    assert "Did you mean 'messages'?" in run("mesages").err
    assert run("--version").out.startswith("mailing ")
