"""Serves MailingService: decodes and checks requests, calls the stores, encodes answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dispatcher.model.endpoints import endpoint_name
from dispatcher.model.states import MailingState
from dispatcher.model.templates import parse
from mailing.v1 import mailing_service_pb2 as pb
from mailing.v1.mailing_service_pb2_grpc import MailingServiceServicer
from server.api.encoding.filters import mask_without_text, read_filter_text
from server.api.encoding.mailings import definition_of, mailing_message, new_definition
from server.api.encoding.masking import masked, shown_text
from server.api.encoding.messages import attempt_message
from server.api.encoding.previews import preview_message
from server.api.encoding.reports import report_response
from server.api.encoding.sizes import fitted
from server.api.encoding.wellknown import changed_fields, creating_call, numbers_of
from server.api.handlers import Context
from server.domain.clients import ClientDefinition, check_phone, completed
from server.domain.errors import ClientOptedOut, EndpointUnknown, ScopeMissing
from server.domain.events import mailing_tested
from server.domain.mailings import (
    MAILING_FIELDS,
    Mailing,
    MailingDefinition,
    MailingQuery,
    check_labels,
    check_mailing,
    requeueable,
)
from server.domain.pagination import PageRequest
from server.domain.previews import sample_count
from server.domain.principals import Scope, caller, shown_attributes
from server.domain.validation import Violations, check_id, check_text, page_size, require_id
from server.endpoints.probes import EndpointProbes
from server.storage.answered_calls import AnsweredCalls
from server.storage.clients import ClientStore
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.mailing_deletion import MailingDeletion
from server.storage.mailing_retry import MailingRetry
from server.storage.mailings import MailingStore
from server.storage.previews import PreviewStore
from server.storage.reports import ReportStore
from server.storage.request_ids import CreatingCall

_TESTED_FIELDS = ("text", "endpoint")
"""What a test message uses of a mailing that is not stored."""

MAX_QUERY = 200
"""Characters that ListMailings looks for."""


class MailingService(MailingServiceServicer):
    """Mailings; `probes` knows the endpoints that they may use."""

    def __init__(
        self,
        database: Database,
        installation: Installation,
        hint: Callable[[], None],
        previews: PreviewStore,
        probes: EndpointProbes,
    ) -> None:
        self._zones = installation.zones
        self._previews = previews
        self._mailings = MailingStore(database, installation, hint)
        self._deletion = MailingDeletion(database)
        self._retry = MailingRetry(database, hint)
        self._reports = ReportStore(database)
        self._clients = ClientStore(database, installation)
        self._tests = AnsweredCalls(database, installation)
        self._probes = probes
        self._last_read: Mailing | None = None
        self._response = pb.GetMailingResponse()

    async def CreateMailing(self, request: pb.CreateMailingRequest, context: Context) -> pb.CreateMailingResponse:
        """Add one mailing."""
        violations = Violations()
        read_filter_text(request.mailing, "mailing.")
        definition = new_definition(request.mailing, self._zones, violations)
        call = creating_call("CreateMailing", request.request_id, request.mailing, violations)
        violations.check()
        self.check_names(definition)
        return pb.CreateMailingResponse(mailing=mailing_message(await self._mailings.create(definition, call)))

    async def GetMailing(self, request: pb.GetMailingRequest, context: Context) -> pb.GetMailingResponse:
        """Return one mailing with its progress."""
        require_id(request.mailing_id, "mailing_id")
        mailing = await self._mailings.get(request.mailing_id)
        if mailing is not self._last_read:  # one read serves all who asked meanwhile, and so does one response
            self._last_read, self._response = mailing, pb.GetMailingResponse(mailing=mailing_message(mailing))
        return self._response

    async def UpdateMailing(self, request: pb.UpdateMailingRequest, context: Context) -> pb.UpdateMailingResponse:
        """Change the fields named in the mask."""
        violations = Violations()
        check_id(request.mailing.id, "mailing.id", violations)
        read_filter_text(request.mailing, "mailing.")
        mask = mask_without_text(request.update_mask)
        fields = changed_fields(request.mailing, mask, MAILING_FIELDS, violations)
        patch = definition_of(request.mailing, violations)
        check_mailing(patch, self._zones, violations, fields)
        violations.check()
        if "endpoint" in fields:
            self._check_endpoint(patch.endpoint)
        mailing = await self._mailings.update(
            request.mailing.id, request.mailing.etag, patch, fields, request.validate_only
        )
        return pb.UpdateMailingResponse(mailing=mailing_message(mailing))

    async def DeleteMailing(self, request: pb.DeleteMailingRequest, context: Context) -> pb.DeleteMailingResponse:
        """Remove one mailing and its messages."""
        require_id(request.mailing_id, "mailing_id")
        removed = await self._deletion.delete(request.mailing_id, request.etag, request.allow_missing)
        return pb.DeleteMailingResponse(deleted_messages=removed.messages, remaining_messages=removed.remaining)

    async def ListMailings(self, request: pb.ListMailingsRequest, context: Context) -> pb.ListMailingsResponse:
        """Return a page of mailings."""
        violations = Violations()
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        states = numbers_of(MailingState, request.states, "states", violations)
        query = MailingQuery(states, dict(request.labels), request.query, request.schedule_id)
        check_labels(query.labels, "labels", violations)
        check_text(query.text, MAX_QUERY, "query", violations)
        if query.schedule_id < 0:
            violations.add("schedule_id", "must be the id of a schedule, or 0 for any")
        violations.check()
        found = await self._mailings.list_page(query, page)
        mailings, next_token = fitted(found, mailing_message)
        return pb.ListMailingsResponse(mailings=mailings, next_page_token=next_token)

    async def PauseMailing(self, request: pb.PauseMailingRequest, context: Context) -> pb.PauseMailingResponse:
        """Pause a mailing."""
        require_id(request.mailing_id, "mailing_id")
        return pb.PauseMailingResponse(
            mailing=mailing_message(await self._mailings.pause(request.mailing_id, request.etag))
        )

    async def ResumeMailing(self, request: pb.ResumeMailingRequest, context: Context) -> pb.ResumeMailingResponse:
        """Resume a paused mailing."""
        require_id(request.mailing_id, "mailing_id")
        return pb.ResumeMailingResponse(mailing=mailing_message(await self._mailings.resume(request.mailing_id)))

    async def CancelMailing(self, request: pb.CancelMailingRequest, context: Context) -> pb.CancelMailingResponse:
        """Cancel a mailing."""
        require_id(request.mailing_id, "mailing_id")
        return pb.CancelMailingResponse(
            mailing=mailing_message(await self._mailings.cancel(request.mailing_id, request.etag))
        )

    async def PreviewMailing(self, request: pb.PreviewMailingRequest, context: Context) -> pb.PreviewMailingResponse:
        """Return what a mailing would do."""
        violations = Violations()
        samples = sample_count(request.samples, violations)
        mailing: MailingDefinition | int = request.mailing_id
        match request.WhichOneof("source"):
            case "mailing":
                read_filter_text(request.mailing, "mailing.")
                mailing = new_definition(request.mailing, self._zones, violations)
            case "mailing_id":
                check_id(request.mailing_id, "mailing_id", violations)
            case _:
                violations.add("mailing_id", "is required, or else mailing: what to preview")
        violations.check()
        if isinstance(mailing, MailingDefinition):
            self.check_names(mailing)
        return preview_message(await self._previews.preview(mailing, samples))

    async def SendTestMessage(self, request: pb.SendTestMessageRequest, context: Context) -> pb.SendTestMessageResponse:
        """Send a mailing's text to one phone at once, once for each request id; no message is recorded."""
        violations = Violations()
        call = _test_call(request, violations)
        mailing = await self._mailing_to_test(request, violations)
        text, attributes = await self._rendered(mailing, request)
        self._probes.take_turn()

        async def send() -> bytes:
            await self._mailings.note(mailing_tested(request.mailing_id, masked(request.phone), request.force))
            result = await self._probes.send(mailing.endpoint, request.phone, text, mailing.title, attributes)
            answer = pb.SendTestMessageResponse(attempt=attempt_message(result.attempt), message_id=result.message_id)
            return answer.SerializeToString()

        answer = pb.SendTestMessageResponse.FromString(await self._tests.once(call, send))
        answer.text = shown_text(text, request.phone)  # not kept with the rest of the answer: it may name somebody
        return answer

    async def _mailing_to_test(self, request: pb.SendTestMessageRequest, violations: Violations) -> MailingDefinition:
        """Return the mailing that a request contains or names. Raise InvalidFields and NotFound."""
        given = None
        match request.WhichOneof("source"):
            case "mailing_id":
                check_id(request.mailing_id, "mailing_id", violations)
            case "mailing":
                given = definition_of(request.mailing, Violations())
                check_mailing(given, (), violations, _TESTED_FIELDS)
            case _:
                violations.add("mailing_id", "is required, or else mailing: what to send")
        check_phone(request.phone, "phone", violations)
        violations.check()
        return given or (await self._mailings.get(request.mailing_id)).definition

    async def _rendered(
        self, mailing: MailingDefinition, request: pb.SendTestMessageRequest
    ) -> tuple[str, Mapping[str, str]]:
        """Return text and attributes of the client with this phone, or of an unknown client who has nothing else.

        Raise ClientOptedOut unless the request forces it, for which ScopeMissing may be raised.
        """
        phone = request.phone
        client = await self._clients.find(phone) or completed(ClientDefinition(phone=phone, timezone=""))
        if request.force and not caller().may(Scope.CLIENTS_WRITE):
            raise ScopeMissing(Scope.CLIENTS_WRITE)
        if client.opted_out and not request.force:
            raise ClientOptedOut
        attributes = shown_attributes(client.attributes)
        values = (phone, client.operator_code, client.tag, client.timezone, attributes)
        return parse(mailing.text).render(*values), attributes

    async def RetryMailing(self, request: pb.RetryMailingRequest, context: Context) -> pb.RetryMailingResponse:
        """Return settled messages of a mailing to PENDING."""
        violations = Violations()
        check_id(request.mailing_id, "mailing_id", violations)
        statuses = requeueable(request.statuses, "statuses", violations)
        violations.check()
        return pb.RetryMailingResponse(requeued=await self._retry.retry(request.mailing_id, statuses))

    async def GetMailingReport(
        self, request: pb.GetMailingReportRequest, context: Context
    ) -> pb.GetMailingReportResponse:
        """Return the verbose statistics of one mailing."""
        require_id(request.mailing_id, "mailing_id")
        return report_response(await self._reports.read(request.mailing_id))

    def check_names(self, definition: MailingDefinition) -> None:
        """Raise EndpointUnknown for a definition that names what is not configured."""
        self._check_endpoint(definition.endpoint)

    def _check_endpoint(self, name: str) -> None:
        known = self._probes.names
        if (endpoint := endpoint_name(name)) not in known:
            raise EndpointUnknown(endpoint, known)


def _test_call(request: pb.SendTestMessageRequest, violations: Violations) -> CreatingCall | None:
    body = pb.SendTestMessageRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return creating_call("SendTestMessage", request.request_id, body, violations)
