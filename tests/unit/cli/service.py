"""Servicers that answer as the contract says, out of plain lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Never

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mailing.v1 import admin_service_pb2 as adm
from mailing.v1 import client_service_pb2 as cs
from mailing.v1 import mailing_service_pb2 as ms
from mailing.v1 import message_service_pb2 as xs
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2_grpc import ClientServiceServicer
from mailing.v1.dispatch_pb2 import DispatchSettings, Endpoint
from mailing.v1.mailing_pb2 import Mailing, MailingProgress
from mailing.v1.mailing_service_pb2_grpc import MailingServiceServicer
from mailing.v1.message_pb2 import Attempt, Message
from mailing.v1.message_service_pb2_grpc import MessageServiceServicer
from mailing.v1.webhook_pb2 import Webhook

_PAGE = 2


def rich_status(
    code: grpc.StatusCode, reason: str, message: str, fields: Sequence[tuple[str, str]] = ()
) -> status_pb2.Status:
    details = [AnyProto(), AnyProto()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain="mailing.v1"))
    violations = [error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in fields]
    details[1].Pack(error_details_pb2.BadRequest(field_violations=violations))
    return status_pb2.Status(code=code.value[0], message=message, details=details)


def refuse(context: grpc.ServicerContext, *status: Any) -> Never:
    context.abort_with_status(rpc_status.to_status(rich_status(*status)))
    raise AssertionError("abort_with_status raises")


class Stoppable(AdminServiceServicer):
    """Stops all sending and resumes it, by its `settings`."""

    settings: DispatchSettings

    def PauseDispatch(
        self, request: adm.PauseDispatchRequest, context: grpc.ServicerContext
    ) -> adm.PauseDispatchResponse:
        self.settings.paused = True
        return adm.PauseDispatchResponse(settings=self.settings)

    def ResumeDispatch(
        self, request: adm.ResumeDispatchRequest, context: grpc.ServicerContext
    ) -> adm.ResumeDispatchResponse:
        self.settings.paused = False
        return adm.ResumeDispatchResponse(settings=self.settings)


def _row_error(path: str, sentence: str) -> cs.ImportClientsResponse.RowError:
    row, _, field = path.removeprefix("clients[").partition("].")
    return cs.ImportClientsResponse.RowError(row=int(row), field=field, description=sentence)


class Clients(ClientServiceServicer):
    def __init__(self) -> None:
        self.stored: list[Client] = []
        self.batch_sizes: list[int] = []
        self.import_masks: list[list[str]] = []
        """What the first message of each import names."""
        self.metadata: dict[str, Any] = {}
        self.bad_phones: dict[str, tuple[str, str]] = {}
        """The field and the sentence to refuse a phone with."""
        self.refusals: list[float] = []
        """How long CreateClient asks to wait, one call after the other."""
        self.request_ids: list[str] = []

    def CreateClient(self, request: cs.CreateClientRequest, context: grpc.ServicerContext) -> cs.CreateClientResponse:
        self.metadata = dict(context.invocation_metadata())
        self.request_ids.append(request.request_id)
        if self.refusals:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self.refusals.pop(0) * 1000))
            status = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", "too many")
            status.details.add().Pack(retry)
            context.abort_with_status(rpc_status.to_status(status))
        if any(one.phone == request.client.phone for one in self.stored):
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "PHONE_TAKEN", "Another client has the phone.")
        if request.client.phone in self.bad_phones:
            field, sentence = self.bad_phones[request.client.phone]
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "bad", [(f"client.{field}", sentence)])
        self.stored.append(request.client)
        self.stored[-1].id = len(self.stored) << 40
        return cs.CreateClientResponse(client=self.stored[-1])

    def ListClients(self, request: cs.ListClientsRequest, context: grpc.ServicerContext) -> cs.ListClientsResponse:
        if request.page_size < 0:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "bad", [("page_size", "is negative")])
        start = int(request.page_token or 0)
        matching = [one for one in self.stored if not request.filter.tags or one.tag in request.filter.tags]
        more = start + _PAGE < len(matching)
        return cs.ListClientsResponse(
            clients=matching[start : start + _PAGE], next_page_token=str(start + _PAGE) if more else ""
        )

    def ImportClients(
        self, request_iterator: Iterator[cs.ImportClientsRequest], context: grpc.ServicerContext
    ) -> cs.ImportClientsResponse:
        clients: list[Client] = []
        skips = False
        ended = threading.Event()
        begun = context.add_callback(ended.set)
        for number, request in enumerate(request_iterator):
            if not number:
                self.import_masks.append(list(request.update_mask.paths))
                skips = request.skip_invalid or request.validate_only
            self.batch_sizes.append(len(request.clients))
            clients += request.clients
        if bad := [
            (f"clients[{index}].{self.bad_phones[one.phone][0]}", self.bad_phones[one.phone][1])
            for index, one in enumerate(clients)
            if one.phone in self.bad_phones
        ]:
            if not skips:
                refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "some are bad", bad)
            errors = [_row_error(field, sentence) for field, sentence in bad]
            return cs.ImportClientsResponse(created=len(clients) - len(bad), skipped=len(bad), errors=errors)
        # A stream that was cancelled ends as a finished one does; that it was is told right after.
        if begun and not ended.wait(0.5):
            self.stored += clients
        return cs.ImportClientsResponse(created=len(clients))

    def ExportClients(
        self, request: cs.ExportClientsRequest, context: grpc.ServicerContext
    ) -> Iterator[cs.ExportClientsResponse]:
        for one in self.stored:
            yield cs.ExportClientsResponse(clients=[one])


class Mailings(MailingServiceServicer):
    def __init__(self) -> None:
        self.created: list[ms.CreateMailingRequest] = []
        self.updated: list[ms.UpdateMailingRequest] = []
        self.retried: list[ms.RetryMailingRequest] = []
        self.previewed: list[ms.PreviewMailingRequest] = []
        self.preview = ms.PreviewMailingResponse()
        """What PreviewMailing answers."""
        self.tested: list[ms.SendTestMessageRequest] = []
        self.attempt = Attempt(number=1, endpoint="default", endpoint_status=200)
        """What SendTestMessage answers."""
        self.script: list[Mailing | grpc.StatusCode] = []
        """What GetMailing answers, in order; the last one again and again."""
        self.report: ms.GetMailingReportResponse | None = None
        self.listed: list[Mailing] = []
        self.remaining = 0
        """How many messages of a deleted mailing are still there."""

    def CreateMailing(
        self, request: ms.CreateMailingRequest, context: grpc.ServicerContext
    ) -> ms.CreateMailingResponse:
        self.created.append(request)
        mailing = Mailing()
        mailing.CopyFrom(request.mailing)
        mailing.id, mailing.state = 7, Mailing.STATE_RUNNING
        return ms.CreateMailingResponse(mailing=mailing)

    def UpdateMailing(
        self, request: ms.UpdateMailingRequest, context: grpc.ServicerContext
    ) -> ms.UpdateMailingResponse:
        self.updated.append(request)
        return ms.UpdateMailingResponse(mailing=request.mailing)

    def ListMailings(self, request: ms.ListMailingsRequest, context: grpc.ServicerContext) -> ms.ListMailingsResponse:
        if not self.listed:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no list")
        return ms.ListMailingsResponse(mailings=self.listed)

    def GetMailing(self, request: ms.GetMailingRequest, context: grpc.ServicerContext) -> ms.GetMailingResponse:
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0] if self.script else None
        if isinstance(answer, Mailing):
            return ms.GetMailingResponse(mailing=answer)
        if answer is not None:
            context.abort(answer, "away")
        refuse(context, grpc.StatusCode.NOT_FOUND, "MAILING_NOT_FOUND", f"There is no mailing {request.mailing_id}.")

    def GetMailingReport(
        self, request: ms.GetMailingReportRequest, context: grpc.ServicerContext
    ) -> ms.GetMailingReportResponse:
        if self.report is None:
            sentence = f"There is no mailing {request.mailing_id}."
            refuse(context, grpc.StatusCode.NOT_FOUND, "MAILING_NOT_FOUND", sentence)
        return self.report

    def SendTestMessage(
        self, request: ms.SendTestMessageRequest, context: grpc.ServicerContext
    ) -> ms.SendTestMessageResponse:
        self.tested.append(request)
        return ms.SendTestMessageResponse(attempt=self.attempt, message_id=1 << 31, text="Hello \x1b[31m")

    def PreviewMailing(
        self, request: ms.PreviewMailingRequest, context: grpc.ServicerContext
    ) -> ms.PreviewMailingResponse:
        self.previewed.append(request)
        return self.preview

    def PauseMailing(self, request: ms.PauseMailingRequest, context: grpc.ServicerContext) -> ms.PauseMailingResponse:
        if request.mailing_id == 7:
            return ms.PauseMailingResponse(mailing=Mailing(id=7, state=Mailing.STATE_PAUSED))
        refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "A mailing that is over cannot be paused.")

    def ResumeMailing(
        self, request: ms.ResumeMailingRequest, context: grpc.ServicerContext
    ) -> ms.ResumeMailingResponse:
        return ms.ResumeMailingResponse(mailing=Mailing(id=request.mailing_id, state=Mailing.STATE_RUNNING))

    def CancelMailing(
        self, request: ms.CancelMailingRequest, context: grpc.ServicerContext
    ) -> ms.CancelMailingResponse:
        return ms.CancelMailingResponse(mailing=Mailing(id=request.mailing_id, state=Mailing.STATE_CANCELLED))

    def RetryMailing(self, request: ms.RetryMailingRequest, context: grpc.ServicerContext) -> ms.RetryMailingResponse:
        self.retried.append(request)
        return ms.RetryMailingResponse(requeued=12345)

    def DeleteMailing(
        self, request: ms.DeleteMailingRequest, context: grpc.ServicerContext
    ) -> ms.DeleteMailingResponse:
        if request.allow_missing:
            return ms.DeleteMailingResponse(deleted_messages=0, remaining_messages=self.remaining)
        refuse(context, grpc.StatusCode.NOT_FOUND, "MAILING_NOT_FOUND", f"There is no mailing {request.mailing_id}.")


class Messages(MessageServiceServicer):
    def __init__(self) -> None:
        self.stored: list[Message] = []
        self.attempts: list[Attempt] = []

    def ListAttempts(self, request: xs.ListAttemptsRequest, context: grpc.ServicerContext) -> xs.ListAttemptsResponse:
        return xs.ListAttemptsResponse(attempts=self.attempts)

    def ListMessages(self, request: xs.ListMessagesRequest, context: grpc.ServicerContext) -> xs.ListMessagesResponse:
        return xs.ListMessagesResponse(
            messages=[one for one in self.stored if not request.statuses or one.status in request.statuses]
        )


class Admin(AdminServiceServicer):
    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.attempt = Attempt(number=1, endpoint="sms", endpoint_status=200)
        """What ProbeEndpoint answers."""
        self.probed: list[str] = []
        self.webhooks: list[Webhook] = []
        self.audit: list[adm.VerifyLedgerResponse] = []
        """What VerifyLedger answers; the token of each is how many were given. A call ends behind one without."""
        self.audited: list[adm.VerifyLedgerRequest] = []

    def VerifyLedger(
        self, request: adm.VerifyLedgerRequest, context: grpc.ServicerContext
    ) -> Iterator[adm.VerifyLedgerResponse]:
        self.audited.append(request)
        for response in self.audit[int(request.resume_token or 0) :]:
            yield response
            if response.checked < 1 and not response.findings:
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    def ListEndpoints(
        self, request: adm.ListEndpointsRequest, context: grpc.ServicerContext
    ) -> adm.ListEndpointsResponse:
        return adm.ListEndpointsResponse(endpoints=self.endpoints)

    def ListWebhooks(self, request: adm.ListWebhooksRequest, context: grpc.ServicerContext) -> adm.ListWebhooksResponse:
        return adm.ListWebhooksResponse(webhooks=self.webhooks)

    def TestWebhook(self, request: adm.TestWebhookRequest, context: grpc.ServicerContext) -> adm.TestWebhookResponse:
        status = 500 if request.webhook == "broken" else 204
        attempt = Attempt(number=1, endpoint=request.webhook, endpoint_status=status)
        return adm.TestWebhookResponse(attempt=attempt, webhook_id="msg_1")

    def ProbeEndpoint(
        self, request: adm.ProbeEndpointRequest, context: grpc.ServicerContext
    ) -> adm.ProbeEndpointResponse:
        self.probed.append(request.endpoint)
        if request.endpoint == "fax":
            sentence = "There is no endpoint 'fax'; there are push, sms."
            refuse(context, grpc.StatusCode.NOT_FOUND, "ENDPOINT_NOT_FOUND", sentence)
        return adm.ProbeEndpointResponse(attempt=self.attempt)


def progress(state: Mailing.State.ValueType, total: int, *, expanded: bool = True, **counts: int) -> Mailing:
    """Return a mailing whose other messages, beside those in `counts`, are pending."""
    figures = MailingProgress(total=total, expanded=expanded, **counts)  # type: ignore[arg-type]
    figures.pending = total - sum(counts.values())
    return Mailing(id=7, state=state, progress=figures)
