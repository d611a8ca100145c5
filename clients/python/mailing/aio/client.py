"""`MailingClient`: the service's calls as methods, for asyncio and, without the `await`, for threads.

A thin layer over the generated stubs: arguments instead of request messages, iterators
instead of pages, `MailingError` instead of gRPC errors. Calls that create something carry a
request id; repeated with the same one they create nothing new. Safe to share between tasks, or threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mailing.aio.client_import import import_in_batches
from mailing.aio.transport import Call, Channel, Items, open_channel, sleep
from mailing.aio.watch import LogWatch, MessageWatch, verify_ledger, watch_dispatch, watch_mailing
from mailing.answers import DeletedMessages
from mailing.calls import Attempts, with_request_id
from mailing.channel import Token
from mailing.errors import MailingError, mailing_errors
from mailing.v1.admin_service_pb2 import (
    GetDispatchRequest,
    GetDispatchResponse,
    ListEndpointsRequest,
    PauseDispatchRequest,
    ProbeEndpointRequest,
    ResumeDispatchRequest,
    UpdateDispatchSettingsRequest,
    VerifyLedgerResponse,
    WatchDispatchResponse,
    WatchLogRequest,
)
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.client_pb2 import Client, ClientFilter
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    DeleteClientRequest,
    ExportClientsRequest,
    GetClientRequest,
    GetClientStoryRequest,
    GetClientStoryResponse,
    ImportClientsRequest,
    ImportClientsResponse,
    ListClientsRequest,
    UpdateClientRequest,
)
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.dispatch_pb2 import DispatchSettings, Endpoint
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    CreateMailingRequest,
    DeleteMailingRequest,
    GetMailingReportRequest,
    GetMailingReportResponse,
    GetMailingRequest,
    ListMailingsRequest,
    PauseMailingRequest,
    PreviewMailingRequest,
    PreviewMailingResponse,
    ResumeMailingRequest,
    RetryMailingRequest,
    SendTestMessageRequest,
    SendTestMessageResponse,
    UpdateMailingRequest,
)
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_pb2 import Attempt, Message
from mailing.v1.message_service_pb2 import (
    ExportMessagesRequest,
    GetMessageRequest,
    ListAttemptsRequest,
    ListMessagesRequest,
)
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import ListSchedulesRequest
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from mailing.v1.segment_service_pb2_grpc import SegmentServiceStub

PAGE_SIZE = 1000
"""The service's largest page size."""

_T = TypeVar("_T")


class MailingClient:
    """A connection to the service.

    The generated stubs are available for everything else: `clients`, `mailings`, `messages`,
    `delivery`, `schedules`, `segments` and `admin`. `call` makes their unary calls with the client's deadline,
    repeats and errors; used alone they raise `grpc.RpcError`, which `mailing_errors()` translates.
    """

    def __init__(self, channel: Channel, *, timeout: float = 60.0) -> None:
        """Use a channel, which `close` closes. `timeout` bounds each unary call, in seconds."""
        self.clients = ClientServiceStub(channel)
        self.mailings = MailingServiceStub(channel)
        self.messages = MessageServiceStub(channel)
        self.delivery = DeliveryServiceStub(channel)
        self.schedules = ScheduleServiceStub(channel)
        self.segments = SegmentServiceStub(channel)
        self.admin = AdminServiceStub(channel)
        self._channel = channel
        self._timeout = timeout

    @classmethod
    def connect(
        cls,
        address: str,
        token: Token | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 60.0,
    ) -> Self:
        """Return a client of the service at `address` ("host:port" or "unix:/path").

        The first call connects. `token` is sent as a bearer token; it may be a function that returns the one
        for a call, and that is asked for every call. Without `credentials`, which `tls_credentials` makes from
        files, nothing is encrypted. Raise ValueError for what is no address.
        """
        return cls(open_channel(address, token, credentials), timeout=timeout)

    async def close(self) -> None:
        """Close the connection and cancel every call in progress."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def health(self, service: str = "", *, timeout: float = 5.0) -> bool:
        """Return whether a service, by default all of them, can answer calls; wait `timeout` seconds at most."""
        with mailing_errors():
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=timeout)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def create_client(self, client: Client, request_id: str | None = None) -> Client:
        """Create one client and return it as stored."""
        request = CreateClientRequest(client=client, request_id=request_id or "")
        return (await self.call(self.clients.CreateClient, request)).client

    async def get_client(self, client_id: int = 0, *, phone: str = "") -> Client:
        """Return one client, by id or by phone."""
        return (await self.call(self.clients.GetClient, GetClientRequest(client_id=client_id, phone=phone))).client

    async def get_client_story(
        self, client_id: int = 0, *, phone: str = "", page_size: int = PAGE_SIZE, page_token: str = ""
    ) -> GetClientStoryResponse:
        """Return a page of all that is known of one client: messages with attempts, and changes of consent."""
        request = GetClientStoryRequest(client_id=client_id, phone=phone, page_size=page_size, page_token=page_token)
        return await self.call(self.clients.GetClientStory, request)

    async def update_client(
        self,
        client: Client,
        fields: Iterable[str] | None = None,
        *,
        phone: str = "",
        validate_only: bool = False,
    ) -> Client:
        """Change the named fields, or every populated one, of the client with this id or this present `phone`.

        A field may be a part of one, such as `attributes.city`. With `validate_only` return the client as it
        would be, and change nothing.
        """
        request = UpdateClientRequest(
            client=client, update_mask=_mask(fields), phone=phone, validate_only=validate_only
        )
        return (await self.call(self.clients.UpdateClient, request)).client

    async def delete_client(
        self, client_id: int = 0, etag: str = "", *, phone: str = "", allow_missing: bool = False
    ) -> int:
        """Delete one client, by id or by phone; return how many of its messages were cancelled.

        With `allow_missing` a client that does not exist is no error.
        """
        request = DeleteClientRequest(client_id=client_id, etag=etag, phone=phone, allow_missing=allow_missing)
        return (await self.call(self.clients.DeleteClient, request)).cancelled_messages

    async def list_clients(
        self,
        filter: ClientFilter | None = None,  # noqa: A002 - the field's name in the contract
        *,
        filter_text: str = "",
        receiving_now: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Client]:
        """Yield the matching clients in the order of their ids, fetching page after page.

        The filter may be a text instead, such as `tag = "vip" AND NOT got(17)`.
        """
        request = ListClientsRequest(
            filter=filter, filter_text=filter_text, receiving_now=receiving_now, page_size=page_size
        )
        async for page in self._pages(self.clients.ListClients, request):
            for one in page.clients:
                yield one

    async def import_clients(
        self,
        clients: Items[Client],
        fields: Iterable[str] | None = None,
        *,
        validate_only: bool = False,
        skip_invalid: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ImportClientsResponse:
        """Create or update clients by their phones: all of them or, when anything fails, none.

        Every client changes the `fields`, such as `tag` or `attributes.city`, and clears those that it
        leaves empty; without any, each changes what it sets itself. What is not mentioned stays, and an
        opt-out changes only where a client sets it. The iterable is read as fast as the service accepts
        it and may have any length. An error that it raises cancels the import and is raised from here.
        With `validate_only` nothing is stored, with `skip_invalid` the good clients are; both return
        what is wrong with the bad ones instead of raising MailingError. `progress` is called with the number
        of clients sent so far, after each piece of at most 500.
        """
        options = ImportClientsRequest(
            update_mask=_mask(fields), validate_only=validate_only, skip_invalid=skip_invalid
        )
        return await import_in_batches(self.clients.ImportClients, clients, options, progress)

    async def export_clients(
        self,
        filter: ClientFilter | None = None,  # noqa: A002 - as above
        *,
        filter_text: str = "",
    ) -> AsyncIterator[Client]:
        """Yield every matching client from one stream; much faster than `list_clients`."""
        request = ExportClientsRequest(filter=filter, filter_text=filter_text)
        with mailing_errors():
            async for part in self.clients.ExportClients(request):
                for one in part.clients:
                    yield one

    async def create_mailing(self, mailing: Mailing, request_id: str | None = None) -> Mailing:
        """Create one mailing and return it as stored."""
        request = CreateMailingRequest(mailing=mailing, request_id=request_id or "")
        return (await self.call(self.mailings.CreateMailing, request)).mailing

    async def get_mailing(self, mailing_id: int) -> Mailing:
        """Return one mailing with its progress."""
        return (await self.call(self.mailings.GetMailing, GetMailingRequest(mailing_id=mailing_id))).mailing

    async def update_mailing(
        self, mailing: Mailing, fields: Iterable[str] | None = None, *, validate_only: bool = False
    ) -> Mailing:
        """Change the named fields, or every populated one, of the mailing with this id.

        With `validate_only` return the mailing as it would be, and change nothing.
        """
        request = UpdateMailingRequest(mailing=mailing, update_mask=_mask(fields), validate_only=validate_only)
        return (await self.call(self.mailings.UpdateMailing, request)).mailing

    async def delete_mailing(self, mailing_id: int, etag: str = "", *, allow_missing: bool = False) -> DeletedMessages:
        """Delete one mailing that is not running; return how many of its messages were deleted at once.

        The number has the `remaining` ones, which the service deletes by itself. With `allow_missing` a mailing
        that does not exist is no error, and a repeated call returns how many of its messages still remain.
        """
        request = DeleteMailingRequest(mailing_id=mailing_id, etag=etag, allow_missing=allow_missing)
        answer = await self.call(self.mailings.DeleteMailing, request)
        return DeletedMessages(answer.deleted_messages, answer.remaining_messages)

    async def list_mailings(
        self,
        states: Iterable[Mailing.State.ValueType] = (),
        labels: dict[str, str] | None = None,
        *,
        schedule_id: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Mailing]:
        """Yield mailings, of one schedule or of all, newest first, fetching page after page."""
        request = ListMailingsRequest(states=states, labels=labels, schedule_id=schedule_id, page_size=page_size)
        async for page in self._pages(self.mailings.ListMailings, request):
            for one in page.mailings:
                yield one

    async def list_schedules(self, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Schedule]:
        """Yield schedules, newest first, fetching page after page; `call` makes the other calls of `schedules`."""
        async for page in self._pages(self.schedules.ListSchedules, ListSchedulesRequest(page_size=page_size)):
            for one in page.schedules:
                yield one

    async def preview_mailing(self, mailing: Mailing | int, samples: int = 0) -> PreviewMailingResponse:
        """Return what a mailing, or the stored one with this id, would do; nothing is sent or stored.

        `samples` is the number of rendered texts: 3 for 0, at most 50.
        """
        request = PreviewMailingRequest(samples=samples)
        if isinstance(mailing, Mailing):
            request.mailing.CopyFrom(mailing)
        else:
            request.mailing_id = mailing
        return await self.call(self.mailings.PreviewMailing, request)

    async def pause_mailing(self, mailing_id: int, etag: str = "") -> Mailing:
        """Pause one mailing until it is resumed; with an etag only if it was not changed in between."""
        request = PauseMailingRequest(mailing_id=mailing_id, etag=etag)
        return (await self.call(self.mailings.PauseMailing, request)).mailing

    async def resume_mailing(self, mailing_id: int) -> Mailing:
        """Resume a paused mailing."""
        return (await self.call(self.mailings.ResumeMailing, ResumeMailingRequest(mailing_id=mailing_id))).mailing

    async def cancel_mailing(self, mailing_id: int, etag: str = "") -> Mailing:
        """Cancel one mailing for good; with an etag only if it was not changed in between."""
        request = CancelMailingRequest(mailing_id=mailing_id, etag=etag)
        return (await self.call(self.mailings.CancelMailing, request)).mailing

    async def retry_mailing(self, mailing_id: int, statuses: Iterable[Message.Status.ValueType]) -> int:
        """Return messages that are FAILED, EXPIRED or UNKNOWN, as chosen, to PENDING; return how many.

        After an interrupted call, a repeated one returns the rest.
        """
        request = RetryMailingRequest(mailing_id=mailing_id, statuses=statuses)
        return (await self.call(self.mailings.RetryMailing, request)).requeued

    async def get_mailing_report(self, mailing_id: int) -> GetMailingReportResponse:
        """Return detailed statistics of one mailing."""
        return await self.call(self.mailings.GetMailingReport, GetMailingReportRequest(mailing_id=mailing_id))

    async def send_test_message(
        self, source: int | Mailing, phone: str, request_id: str = "", *, force: bool = False
    ) -> SendTestMessageResponse:
        """Send one message to `phone` now, without recording it; return the attempt and what was sent.

        `source` is the id of a stored mailing, or a mailing that is not stored. The attempt
        succeeded when its error class is the unspecified one. This call is never repeated by itself; with a
        `request_id`, a UUID, your own repeated call returns the first one's attempt and sends nothing.
        `force` sends to a client who opted out, too.
        """
        request = SendTestMessageRequest(phone=phone, request_id=request_id, force=force)
        if isinstance(source, Mailing):
            request.mailing.CopyFrom(source)
        else:
            request.mailing_id = source
        return await self.call(self.mailings.SendTestMessage, request)

    def watch_mailing(
        self, mailing_id: int, *, min_interval: float | None = None, patience: float | None = None
    ) -> AsyncIterator[Mailing]:
        """Yield the mailing now and after each change, until its final state; see `mailing.watch.watch_mailing`."""
        return watch_mailing(self.delivery, mailing_id, min_interval=min_interval, patience=patience)

    def watch_messages(
        self,
        mailing_id: int = 0,
        statuses: Iterable[Message.Status.ValueType] = (),
        *,
        resume_token: str = "",
        from_start: bool = False,
        include_receipts: bool = False,
        patience: float | None = None,
    ) -> MessageWatch:
        """Return an endless iterator of changes of messages, each once; see `MessageWatch`.

        When the changes behind the token are not kept any more, a watch of one mailing goes on with the last
        change of each of its messages.
        """
        chosen = list(statuses)
        return MessageWatch(
            self.delivery,
            mailing_id,
            chosen,
            resume_token=resume_token,
            from_start=from_start,
            include_receipts=include_receipts,
            patience=patience,
            list_messages=partial(self.list_messages, mailing_id, statuses=chosen) if mailing_id else None,
        )

    async def get_message(self, message_id: int) -> Message:
        """Return one message."""
        return (await self.call(self.messages.GetMessage, GetMessageRequest(message_id=message_id))).message

    async def list_messages(
        self,
        mailing_id: int = 0,
        client_id: int = 0,
        statuses: Iterable[Message.Status.ValueType] = (),
        *,
        phone: str = "",
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Message]:
        """Yield the messages of a mailing, of a client (by id or phone), or of both, fetching page after page."""
        request = ListMessagesRequest(
            mailing_id=mailing_id, client_id=client_id, statuses=statuses, phone=phone, page_size=page_size
        )
        async for page in self._pages(self.messages.ListMessages, request):
            for one in page.messages:
                yield one

    async def export_messages(
        self, mailing_id: int, statuses: Iterable[Message.Status.ValueType] = ()
    ) -> AsyncIterator[Message]:
        """Yield every message of a mailing from one stream, with phone and text where the caller may see them."""
        request = ExportMessagesRequest(mailing_id=mailing_id, statuses=statuses)
        with mailing_errors():
            async for part in self.messages.ExportMessages(request):
                for one in part.messages:
                    yield one

    async def get_dispatch(self) -> GetDispatchResponse:
        """Return every dispatcher that is alive, and the settings in force."""
        return await self.call(self.admin.GetDispatch, GetDispatchRequest())

    def watch_dispatch(
        self, *, min_interval: float | None = None, patience: float | None = None
    ) -> AsyncIterator[WatchDispatchResponse]:
        """Yield the same about every `min_interval` seconds (1 by default); see `watch_dispatch`."""
        return watch_dispatch(self.admin, min_interval=min_interval, patience=patience)

    async def update_dispatch_settings(
        self, settings: DispatchSettings | None = None, fields: Iterable[str] | None = None
    ) -> DispatchSettings:
        """Change settings of all dispatchers and return those in force; see `new_dispatch_settings`.

        Change the fields that are set or, with `fields`, those: a named field that is not set
        returns to the value each dispatcher was started with.
        """
        settings = settings or DispatchSettings()
        request = UpdateDispatchSettingsRequest(settings=settings, update_mask=_mask(fields))
        return (await self.call(self.admin.UpdateDispatchSettings, request)).settings

    async def pause_dispatch(self) -> DispatchSettings:
        """Stop all sending on all replicas within a second: the emergency stop."""
        return (await self.call(self.admin.PauseDispatch, PauseDispatchRequest())).settings

    async def resume_dispatch(self) -> DispatchSettings:
        """Resume sending after the emergency stop."""
        return (await self.call(self.admin.ResumeDispatch, ResumeDispatchRequest())).settings

    def watch_log(
        self,
        mailing_id: int = 0,
        message_id: int = 0,
        client_id: int = 0,
        level: LogEntry.Level.ValueType = LogEntry.LEVEL_UNSPECIFIED,
        *,
        resume_token: str = "",
        follow: bool = True,
        patience: float | None = None,
    ) -> LogWatch:
        """Return an iterator of the event log, past and live; see `LogWatch`.

        It has the entries about a mailing, a message and a client (0: any), of at least `level`.
        """
        request = WatchLogRequest(
            mailing_id=mailing_id, message_id=message_id, client_id=client_id, level=level, resume_token=resume_token
        )
        return LogWatch(self.admin, request, follow=follow, patience=patience)

    def verify_ledger(
        self, mailing_id: int = 0, *, resume_token: str = "", patience: float | None = None
    ) -> AsyncIterator[VerifyLedgerResponse]:
        """Yield what an audit of the records finds, while the service runs; see `mailing.watch.verify_ledger`."""
        return verify_ledger(self.admin, mailing_id, resume_token=resume_token, patience=patience)

    async def list_attempts(self, message_id: int) -> list[Attempt]:
        """Return the failed attempts of one message, in order."""
        return list((await self.call(self.messages.ListAttempts, ListAttemptsRequest(message_id=message_id))).attempts)

    async def list_endpoints(self) -> list[Endpoint]:
        """Return the configured endpoints with their status, in the order of their names."""
        return list((await self.call(self.admin.ListEndpoints, ListEndpointsRequest())).endpoints)

    async def probe_endpoint(self, name: str = "") -> Attempt:
        """Make one request to an endpoint, by default the default one, and return the attempt.

        It succeeded when the attempt's error class is the unspecified one.
        """
        return (await self.call(self.admin.ProbeEndpoint, ProbeEndpointRequest(endpoint=name))).attempt

    async def call(self, method: Call[_T], request: Any) -> _T:
        """Make a unary call of one of the stubs, such as `client.mailings.GetMailing`, and return its response.

        A creation without a request id gets one. While the service is unavailable, reads and creations are
        repeated; they wait as long as the service asks, within the timeout. Raise MailingError.
        """
        request = with_request_id(request)
        attempts = Attempts(request, self._timeout)
        while True:
            try:
                return await method(request, timeout=attempts.remaining)
            except grpc.RpcError as error:
                pause = attempts.pause(MailingError.from_rpc_error(error))
            await sleep(pause)

    async def _pages(self, method: Call[_T], request: Any) -> AsyncIterator[_T]:
        while True:
            page: Any = await self.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _mask(fields: Iterable[str] | None) -> FieldMask | None:
    return None if fields is None else FieldMask(paths=fields)
