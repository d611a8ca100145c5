"""What outcomes make of the log: failures one by one while they are few, one entry for many."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatcher.model.outcomes import Failure, Outcome, Settled
from dispatcher.model.states import ErrorClass, Reason, Status
from dispatcher.outcome_events import MOST_SINGLE, Level, of_settlement
from tests.unit.dispatcher.batches import settlement


def outcome(client: int, status: Status, reason: Reason = Reason.NONE, error: ErrorClass | None = None) -> Settled:
    failure = Failure(datetime.now(UTC), error, "sorry") if error else None
    due_at = datetime.now(UTC) if status is Status.PENDING else None
    return client, 1, Outcome(status, reason, int(bool(error)), 503 if error else None, None, 5, due_at, failure)


def test_success_is_not_told() -> None:
    assert of_settlement(settlement([outcome(n, Status.DELIVERED) for n in range(500)], "default")) == []


def test_few_failures_are_told_one_by_one() -> None:
    retried = outcome(1, Status.PENDING, Reason.RETRYING, ErrorClass.SERVER)
    failed = outcome(2, Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, ErrorClass.TIMEOUT)
    skipped = outcome(3, Status.SKIPPED, Reason.OPTED_OUT)
    first, third, fourth = of_settlement(settlement([retried, failed, skipped], "sms"))
    assert (first.event, first.level, first.client_id) == ("attempt.failed", Level.WARNING, 1)
    assert first.text == "Attempt 2 failed: gateway error (HTTP 503)."
    known = {"endpoint": "sms", "error_class": "SERVER", "endpoint_status": "503", "answer": "sorry"}
    assert first.details == {"number": "2", **known}
    assert (third.event, third.level, third.client_id) == ("message.failed", Level.ERROR, 2)
    assert third.text == "Message failed: all attempts failed, the last: no answer in time (HTTP 503)."
    assert third.details == {"reason": "ATTEMPTS_EXHAUSTED", "attempts": "2", **known, "error_class": "TIMEOUT"}
    assert (fourth.event, fourth.level) == ("message.skipped", Level.INFO)
    assert {entry.mailing_id for entry in (first, third, fourth)} == {7}


def test_many_failures_make_few_entries() -> None:
    settled = [outcome(n, Status.FAILED, Reason.REFUSED, ErrorClass.REFUSED) for n in range(300)]
    settled += [outcome(n, Status.EXPIRED, Reason.MAILING_ENDED) for n in range(300, 500)]
    failed, expired = of_settlement(settlement(settled, "default"))
    assert (failed.event, failed.client_id, failed.details["count"]) == ("messages.failed", 0, "300")
    assert failed.text == "300 messages failed: 300 refused (HTTP 503)."
    assert (expired.event, expired.text) == ("messages.expired", "200 messages expired: 200 mailing ended first.")


def test_many_failures_that_are_tried_again_make_one_entry() -> None:
    settled = [outcome(n, Status.PENDING, Reason.RETRYING, ErrorClass.SERVER) for n in range(300)]
    (attempts,) = of_settlement(settlement(settled, "default"))
    assert (attempts.event, attempts.client_id, attempts.details["count"]) == ("attempts.failed", 0, "300")
    assert attempts.text == "300 attempts failed: 300 gateway error (HTTP 503)."


def test_however_many_kinds_there_are_an_entry_stays_short() -> None:
    many = [outcome(n, Status.FAILED, Reason.REFUSED, ErrorClass.REFUSED) for n in range(500)]
    settled = [(client, before, one._replace(endpoint_code=client)) for client, before, one in many]
    (failed,) = of_settlement(settlement(settled, "default"))
    assert len(failed.text) < 200
    assert failed.text.endswith(", ….")


def test_what_an_endpoint_said_is_a_detail_of_single_entries() -> None:
    """It is no part of a text, which has readers who may not see it."""
    for count in (1, MOST_SINGLE + 1):
        settled = [outcome(n, Status.PENDING, error=ErrorClass.SERVER) for n in range(count)]
        entries = of_settlement(settlement(settled, "x"))
        assert [one for one in entries if "sorry" in one.text] == []
        assert [one.details.get("answer") for one in entries] == (["sorry"] if count == 1 else [None])
