"""Serves DeliveryService: changes of mailings and messages, as they happen.

Responses are encoded to bytes once for all streams that send the same: protobuf's fields may be
joined in any order, so a response is the bytes of its changes followed by those of its token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from dispatcher.model.states import Status
from mailing.v1 import delivery_service_pb2 as pb
from server.api.encoding.changes import encoded_changes, encoded_position
from server.api.encoding.wellknown import IntervalRange, numbers_of
from server.api.handlers import Context, Handler
from server.domain.change_feed import ChangeQuery
from server.domain.errors import Kind, NotFound, ReaderTooSlow, ShuttingDown
from server.domain.resume_tokens import Tokens, reached
from server.domain.validation import Violations, check_id
from server.storage.mailings import ProgressStore
from server.watch import ChangeBatch, Streams

DELIVERY = pb.DESCRIPTOR.services_by_name["DeliveryService"]

INTERVALS = IntervalRange(default=0.25, shortest=0.05, longest=3600.0, words="50 ms to 1 hour")
"""Intervals of WatchMailing."""


class DeliveryService:
    """The streams of mailings and of message changes."""

    def __init__(self, streams: Streams, progress: ProgressStore) -> None:
        self._streams = streams
        self._progress = progress

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods; their responses are bytes already."""
        handlers: dict[str, Handler] = {
            "WatchMailing": grpc.unary_stream_rpc_method_handler(
                self.watch_mailing, request_deserializer=pb.WatchMailingRequest.FromString
            ),
            "WatchMessages": grpc.unary_stream_rpc_method_handler(
                self.watch_messages, request_deserializer=pb.WatchMessagesRequest.FromString
            ),
        }
        made: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(DELIVERY.full_name, handlers)
        return made

    async def watch_mailing(self, request: pb.WatchMailingRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream one mailing until its final state."""
        violations = Violations()
        check_id(request.mailing_id, "mailing_id", violations)
        interval = INTERVALS.of(request, violations)
        violations.check()
        async with aclosing(self._streams.mailing(request.mailing_id, interval)) as views:
            async for view in views:
                yield view.body

    async def watch_messages(self, request: pb.WatchMessagesRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream transitions of messages until the caller cancels."""
        query = await self._query_of(request)
        tokens, token = self._streams.tokens(query), request.resume_token
        batches = self._streams.messages(query, request.resume_token, request.from_start)
        reached(token)
        try:
            async with aclosing(batches):
                async for batch in batches:
                    after = tokens.encode(batch.positions, batch.timeline)
                    for response in _responses(batch, query, tokens, after):
                        yield response
                    token = after
                    reached(token)
        except (ReaderTooSlow, ShuttingDown) as end:
            raise type(end)(token) from None

    async def _query_of(self, request: pb.WatchMessagesRequest) -> ChangeQuery:
        """Return what the request asks for. Raise InvalidFields, and NotFound for an unknown mailing."""
        violations = Violations()
        if request.mailing_id < 0:
            violations.add("mailing_id", "must be a positive id, or 0 for all mailings")
        statuses = numbers_of(Status, request.statuses, "statuses", violations)
        violations.check()
        if request.mailing_id and not await self._progress.versions([request.mailing_id]):
            raise NotFound(Kind.MAILING, request.mailing_id)
        return ChangeQuery(request.mailing_id, frozenset(statuses), request.include_receipts)


def _responses(batch: ChangeBatch, query: ChangeQuery, tokens: Tokens, after: str) -> list[bytes]:
    """Return a batch as responses: a single one, unless it is one entry that is too large for that.

    Only the token of the last response is behind the entry; resuming earlier repeats all of it.
    """
    if not batch.entries:
        return [encoded_position(after, checkpoint=True)]
    if len(batch.entries) > 1:
        pieces = [piece for entry in batch.entries for piece in encoded_changes(entry, query.statuses)]
        return [b"".join((*pieces, encoded_position(after)))]
    *earlier, last = encoded_changes(batch.entries[0], query.statuses)
    before = encoded_position(tokens.encode(batch.before, batch.timeline)) if earlier else b""
    return [*(piece + before for piece in earlier), last + encoded_position(after)]
