"""The event log: queries and recorded events ↔ their messages."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.outcome_events import ANSWER, Level
from mailing.v1.admin_service_pb2 import WatchLogRequest
from mailing.v1.log_pb2 import LogEntry
from server.api.encoding.masking import shown_excerpt
from server.api.encoding.wellknown import number_of, timestamp
from server.domain.events import EventQuery, RecordedEvent
from server.domain.principals import Scope, caller
from server.domain.validation import Violations


def event_query(request: WatchLogRequest) -> EventQuery:
    """Return which events a request selects. Raise InvalidFields."""
    violations = Violations()
    for name in ("mailing_id", "message_id", "client_id"):
        if getattr(request, name) < 0:
            violations.add(name, "must be a positive id, or 0 for any")
    level = number_of(Level, request.level or Level.DEBUG, "level", violations)
    violations.check()
    return EventQuery(request.mailing_id, request.message_id, request.client_id, level or Level.DEBUG)


def event_message(recorded: RecordedEvent) -> LogEntry:
    """Return a recorded event as its message."""
    return LogEntry(
        time=timestamp(recorded.at),
        level=recorded.level.value,  # type: ignore[arg-type]
        event=recorded.event,
        text=recorded.text,
        mailing_id=recorded.mailing_id,
        message_id=recorded.message_id,
        client_id=recorded.client_id,
        principal=recorded.principal,
        details=_details(recorded.details),
    )


def _details(details: Mapping[str, str]) -> Mapping[str, str]:
    """Return details as the current caller may see them: a gateway's words are a part of the attempts."""
    if ANSWER not in details:
        return details
    shown = {name: value for name, value in details.items() if name != ANSWER}
    return {**shown, ANSWER: shown_excerpt(details[ANSWER])} if caller().may(Scope.MESSAGES_READ) else shown
