"""Serves AdminService.WatchLog."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from dispatcher.outcome_events import Level
from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.log_pb2 import LogEntry
from server.api.encoding.wellknown import number_of, timestamp
from server.domain.errors import ReaderTooSlow, ShuttingDown
from server.domain.events import EventQuery, RecordedEvent
from server.domain.validation import Violations
from server.watch.admin_streams import AdminStreams


class LogCalls:
    """The method about the log."""

    def __init__(self, streams: AdminStreams) -> None:
        self._log = streams

    async def watch(self, request: pb.WatchLogRequest) -> AsyncGenerator[pb.WatchLogResponse, None]:
        """Stream the log until the caller has enough."""
        query = _query_of(request)
        tokens, token = self._log.tokens(query), request.resume_token
        try:
            async with aclosing(self._log.log(query, token)) as batches:
                async for batch in batches:
                    after = tokens.encode(batch.positions)
                    yield pb.WatchLogResponse(
                        entries=map(_message, batch.entries), resume_token=after, checkpoint=not batch.entries
                    )
                    token = after
        except (ReaderTooSlow, ShuttingDown) as end:
            raise type(end)(token) from None


def _query_of(request: pb.WatchLogRequest) -> EventQuery:
    violations = Violations()
    for name in ("mailing_id", "message_id", "client_id"):
        if getattr(request, name) < 0:
            violations.add(name, "must be a positive id, or 0 for any")
    level = number_of(Level, request.level or Level.DEBUG, "level", violations)
    violations.check()
    return EventQuery(request.mailing_id, request.message_id, request.client_id, level or Level.DEBUG)


def _message(logged: RecordedEvent) -> LogEntry:
    return LogEntry(
        time=timestamp(logged.at),
        level=logged.level.value,  # type: ignore[arg-type]
        event=logged.event,
        text=logged.text,
        mailing_id=logged.mailing_id,
        message_id=logged.message_id,
        client_id=logged.client_id,
        principal=logged.principal,
        details=logged.details,
    )
