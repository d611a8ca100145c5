"""Entries of the log: a gateway's words are for those who may read attempts, phones in them for those of clients."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatcher.outcome_events import Level
from server.api.encoding.events import event_message
from server.domain.events import RecordedEvent
from server.domain.principals import Principal, Scope, caller, set_caller

WORDS = "no such subscriber +7 (916) 123-45-67"
MASKED = "no such subscriber +* (***) ***-**-67"


@pytest.mark.parametrize(
    ("scopes", "answer"),
    [
        ({Scope.MAILINGS_READ, Scope.ADMIN_READ, Scope.CLIENTS_READ}, ""),
        ({Scope.MESSAGES_READ}, MASKED),
        ({Scope.MESSAGES_READ, Scope.CLIENTS_READ}, WORDS),
    ],
)
def test_the_words_of_a_gateway_follow_the_scopes(scopes: set[Scope], answer: str) -> None:
    before = caller()
    set_caller(Principal("eve", frozenset(scopes), "token"))
    try:
        details = event_message(recorded({"reason": "REFUSED", "answer": WORDS})).details
    finally:
        set_caller(before)
    assert (details["reason"], details["answer"]) == ("REFUSED", answer)


def recorded(details: dict[str, str]) -> RecordedEvent:
    return RecordedEvent(datetime.now(UTC), Level.ERROR, "message.failed", "Message failed.", 1, 2, 3, "", details)
