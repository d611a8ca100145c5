"""What outcomes make of the log: failures one by one while they are few, one entry for many."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatcher.model.outcomes import Failure, Outcome, Settled
from dispatcher.model.states import ErrorClass, Reason, Status
from dispatcher.outcome_events import MOST_SINGLE, Level, of_settlement
from tests.unit.dispatcher.batches import settlement


def outcome(client: int, status: Status, reason: Reason = Reason.NONE, error: ErrorClass | None = None) -> Settled:
    failure = Failure(datetime.now(UTC), error, "secret") if error else None
    due_at = datetime.now(UTC) if status is Status.PENDING else None
    return client, 1, Outcome(status, reason, int(bool(error)), 503 if error else None, None, 5, due_at, failure)


def test_success_is_not_told() -> None:
    assert of_settlement(settlement([outcome(n, Status.DELIVERED) for n in range(500)], "default")) == []


def test_few_failures_are_told_one_by_one() -> None:
    retried = outcome(1, Status.PENDING, Reason.RETRYING, ErrorClass.SERVER)
    failed = outcome(2, Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, ErrorClass.TIMEOUT)
    skipped = outcome(3, Status.SKIPPED, Reason.OPTED_OUT)
    first, second, third, fourth = of_settlement(settlement([retried, failed, skipped], "sms"))
    assert (first.event, first.level, first.client_id) == ("attempt.failed", Level.WARNING, 1)
    assert first.text == "Attempt 2 failed: server (HTTP 503)."
    assert first.details == {"number": "2", "endpoint": "sms", "error_class": "SERVER", "endpoint_status": "503"}
    assert (second.event, second.client_id) == ("attempt.failed", 2)
    assert (third.event, third.level, third.client_id) == ("message.failed", Level.ERROR, 2)
    assert third.details == {"reason": "ATTEMPTS_EXHAUSTED", "attempts": "2"}
    assert (fourth.event, fourth.level) == ("message.skipped", Level.INFO)
    assert {entry.mailing_id for entry in (first, second, third, fourth)} == {7}


def test_many_failures_make_few_entries() -> None:
    settled = [outcome(n, Status.FAILED, Reason.REFUSED, ErrorClass.REFUSED) for n in range(300)]
    settled += [outcome(n, Status.EXPIRED, Reason.MAILING_ENDED) for n in range(300, 500)]
    attempts, failed, expired = of_settlement(settlement(settled, "default"))
    assert (attempts.event, attempts.client_id, attempts.details["count"]) == ("attempts.failed", 0, "300")
    assert attempts.text == "300 attempts failed: 300 refused (HTTP 503)."
    assert (failed.event, failed.details["count"]) == ("messages.failed", "300")
    assert (expired.event, expired.text) == ("messages.expired", "200 messages are expired: 200 mailing ended.")


def test_however_many_kinds_there_are_an_entry_stays_short() -> None:
    many = [outcome(n, Status.FAILED, Reason.REFUSED, ErrorClass.REFUSED) for n in range(500)]
    settled = [(client, before, one._replace(endpoint_code=client)) for client, before, one in many]
    attempts, _ = of_settlement(settlement(settled, "default"))
    assert len(attempts.text) < 200
    assert attempts.text.endswith(", ….")


def test_what_an_endpoint_said_is_not_told() -> None:
    """Its answers may hold what only the attempts' own reader should see."""
    for count in (1, MOST_SINGLE + 1):
        entries = of_settlement(
            settlement([outcome(n, Status.PENDING, error=ErrorClass.SERVER) for n in range(count)], "x")
        )
        assert "secret" not in str(entries)
