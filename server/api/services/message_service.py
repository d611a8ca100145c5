"""Serves MessageService: reads messages and their attempts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dispatcher.model.states import Status
from dispatcher.model.templates import parse
from mailing.v1 import message_service_pb2 as pb
from mailing.v1.message_service_pb2_grpc import MessageServiceServicer
from server.api.encoding.messages import attempt_message, exported_message, ledger_message, listed_message
from server.api.encoding.sizes import fitted, pieces
from server.api.encoding.wellknown import numbers_of
from server.api.handlers import Context
from server.domain.clients import client_key
from server.domain.errors import Kind, NotFound
from server.domain.messages import MessageQuery
from server.domain.pagination import PageRequest, encode_token, query_digest, resumed_key
from server.domain.receipts import Receipt
from server.domain.resume_tokens import reached
from server.domain.validation import Violations, check_id, page_size, require_id
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.mailings import ProgressStore
from server.storage.messages import MessageStore

EXPORT_CHUNK = 500
"""Maximum messages per response of an export."""


class MessageService(MessageServiceServicer):
    """The status and the failed attempts of every message."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._messages = MessageStore(database, installation)
        self._mailings = ProgressStore(database)

    async def GetMessage(self, request: pb.GetMessageRequest, context: Context) -> pb.GetMessageResponse:
        """Return one message."""
        require_id(request.message_id, "message_id")
        return pb.GetMessageResponse(message=ledger_message(await self._messages.get(request.message_id)))

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """Return a page of messages."""
        violations = Violations()
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        statuses = numbers_of(Status, request.statuses, "statuses", violations)
        receipts = numbers_of(Receipt, request.receipts, "receipts", violations)
        for path, value in (("mailing_id", request.mailing_id), ("client_id", request.client_id)):
            if value < 0:
                violations.add(path, "must be a positive id, or 0 for any")
        client = request.client_id or request.phone
        if request.phone:
            client_key(request.client_id, request.phone, violations)
        if not (client or request.mailing_id):
            violations.add("mailing_id", "is required unless client_id or phone is given")
        violations.check()
        found = await self._messages.list_page(MessageQuery(request.mailing_id, client, statuses, receipts), page)
        phones = await self._messages.phones(found.records)
        messages, next_token = fitted(found, lambda one: listed_message(one, phones.get(one.client_id)))
        return pb.ListMessagesResponse(messages=messages, next_page_token=next_token)

    async def ExportMessages(
        self, request: pb.ExportMessagesRequest, context: Context
    ) -> AsyncIterator[pb.ExportMessagesResponse]:
        """Stream the messages of one mailing."""
        violations = Violations()
        check_id(request.mailing_id, "mailing_id", violations)
        statuses = numbers_of(Status, request.statuses, "statuses", violations)
        receipts = numbers_of(Receipt, request.receipts, "receipts", violations)
        violations.check()
        digest = query_digest("export", request.mailing_id, list(statuses), *([list(receipts)] if receipts else []))
        (after,) = resumed_key(request.resume_token, digest, (0,))
        reached(request.resume_token)
        mailing = (await self._mailings.read([request.mailing_id])).get(request.mailing_id)
        if mailing is None:
            raise NotFound(Kind.MAILING, request.mailing_id)
        template = parse(mailing.definition.text)
        async for piece in self._messages.export(request.mailing_id, statuses, receipts, after):
            for messages in pieces((exported_message(one, template) for one in piece), EXPORT_CHUNK):
                token = encode_token(digest, messages[-1].client_id)
                yield pb.ExportMessagesResponse(messages=messages, resume_token=token)
                reached(token)

    async def ListAttempts(self, request: pb.ListAttemptsRequest, context: Context) -> pb.ListAttemptsResponse:
        """Return the failed attempts of one message."""
        require_id(request.message_id, "message_id")
        attempts = await self._messages.list_attempts(request.message_id)
        return pb.ListAttemptsResponse(attempts=[attempt_message(attempt) for attempt in attempts])
