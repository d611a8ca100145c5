"""The service's streams as plain iterators that reconnect.

When a replica stops they continue on another one. `MessageWatch` resumes after the last
change and yields each change once. An error that is not temporary is raised as `MailingError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from mailing.aio.transport import sleep
from mailing.builders import new_duration
from mailing.calls import Outage
from mailing.changes import Repeats, change_of
from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import (
    VerifyLedgerRequest,
    VerifyLedgerResponse,
    WatchDispatchRequest,
    WatchDispatchResponse,
    WatchLogRequest,
)
from mailing.v1.delivery_service_pb2 import MessageChange, WatchMailingRequest, WatchMessagesRequest
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message

_EXPIRED = "RESUME_TOKEN_EXPIRED"


async def watch_mailing(
    delivery: Any, mailing_id: int, *, min_interval: float | None = None, patience: float | None = None
) -> AsyncIterator[Mailing]:
    """Yield the mailing as it is now and after each change, until its final state.

    `min_interval` is the minimum time between two states in seconds: 0.25 by default, at least
    0.05. After the first response, wait up to `patience` seconds for a service that cannot be
    reached (None: without limit). Raise MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchMailingRequest(mailing_id=mailing_id, min_interval=interval)
    async with aclosing(_reconnecting(lambda: delivery.WatchMailing(request), Outage(patience))) as responses:
        async for response in responses:
            yield response.mailing


async def watch_dispatch(
    admin: Any, *, min_interval: float | None = None, patience: float | None = None
) -> AsyncIterator[WatchDispatchResponse]:
    """Yield replicas and settings about every `min_interval` seconds (1 by default, at least 0.1), without end.

    After the first response, wait up to `patience` seconds for a service that cannot be reached
    (None: without limit). Raise MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchDispatchRequest(min_interval=interval)
    async with aclosing(_reconnecting(lambda: admin.WatchDispatch(request), Outage(patience))) as responses:
        async for response in responses:
            yield response


async def verify_ledger(
    admin: Any, mailing_id: int = 0, *, resume_token: str = "", patience: float | None = None
) -> AsyncIterator[VerifyLedgerResponse]:
    """Yield what an audit of the records finds, of one mailing or (0) of all, until its `checked` is 1.

    Begin behind `resume_token`, that of a response. After the first response, wait up to `patience` seconds for a
    service that cannot be reached (None: without limit), and go on there. Raise MailingError.
    """
    request = VerifyLedgerRequest(mailing_id=mailing_id, resume_token=resume_token)
    async with aclosing(_reconnecting(lambda: admin.VerifyLedger(request), Outage(patience))) as responses:
        async for response in responses:
            yield response
            request.resume_token = response.resume_token


class MessageWatch(AsyncIterator[MessageChange]):
    """Yields the changes of messages, without end.

    `resume_token` is the position after the last response that was yielded completely. Another
    watch of the same query continues there, and yields the changes since then again.
    """

    def __init__(
        self,
        delivery: Any,
        mailing_id: int = 0,
        statuses: Iterable[Message.Status.ValueType] = (),
        *,
        resume_token: str = "",
        from_start: bool = False,
        include_receipts: bool = False,
        patience: float | None = None,
        list_messages: Callable[[], AsyncIterator[Message]] | None = None,
    ) -> None:
        """Watch messages of one mailing, or (0) of all, for changes to `statuses`, or to any.

        Begin after `resume_token`; without one now, or with the oldest change that is kept. With
        `include_receipts` yield what gateways report later as well, as changes with a `receipt`. After
        the first response, wait up to `patience` seconds for a service that cannot be reached. When the
        changes behind the token are not kept any more, yield the last change of every message that
        `list_messages` has, and go on from there; without it raise MailingError.
        """
        self.resume_token = resume_token
        self._request = WatchMessagesRequest(
            mailing_id=mailing_id,
            statuses=statuses,
            resume_token=resume_token,
            from_start=from_start,
            include_receipts=include_receipts,
        )
        self._delivery = delivery
        self._list = list_messages
        self._repeats = Repeats()
        self._changes: Any = self._all(Outage(patience))

    async def __anext__(self) -> MessageChange:
        """Wait for the next change and return it; raise MailingError."""
        change: MessageChange = await anext(self._changes)
        return change

    async def close(self) -> None:
        """End the stream."""
        await self._changes.aclose()

    async def _all(self, outage: Outage) -> AsyncIterator[MessageChange]:
        listing = False
        while True:
            try:
                async with aclosing(self._stream(outage, listing)) as changes:
                    async for change in changes:
                        yield change
                return
            except MailingError as failure:
                if failure.reason != _EXPIRED or self._list is None:
                    raise
                listing, self.resume_token, self._repeats = True, "", Repeats()
                self._request.from_start = False

    async def _stream(self, outage: Outage, listing: bool) -> Any:
        async with aclosing(_reconnecting(self._open, outage)) as responses:
            async for response in responses:
                if listing and self._list is not None:
                    # The stream is open, so nothing is missed between the list and its first change.
                    async for message in self._list():
                        yield change_of(message)
                    listing = False
                for change in self._repeats.new_changes(response):
                    yield change
                self.resume_token = response.resume_token

    def _open(self) -> Any:
        self._repeats.resume()
        self._request.resume_token = self.resume_token
        return self._delivery.WatchMessages(self._request)


class LogWatch(AsyncIterator[LogEntry]):
    """Yields the entries of the event log: those that are kept and, with `follow`, new ones.

    `resume_token` is the position after the last response that was yielded completely. Another
    watch of the same query continues there.
    """

    def __init__(
        self, admin: Any, request: WatchLogRequest, *, follow: bool = True, patience: float | None = None
    ) -> None:
        """Read the entries that `request` asks for, from its resume token on or else from the oldest that is kept.

        After the first response, wait up to `patience` seconds for a service that cannot be reached.
        """
        self.resume_token = request.resume_token
        self._request = request
        self._admin = admin
        self._follow = follow
        self._entries: Any = self._all(Outage(patience))

    async def __anext__(self) -> LogEntry:
        """Wait for the next entry and return it; raise MailingError."""
        entry: LogEntry = await anext(self._entries)
        return entry

    async def close(self) -> None:
        """End the stream."""
        await self._entries.aclose()

    async def _all(self, outage: Outage) -> AsyncIterator[LogEntry]:
        async with aclosing(_reconnecting(self._open, outage)) as responses:
            async for response in responses:
                for entry in response.entries:
                    yield entry
                self.resume_token = response.resume_token
                if response.checkpoint and not self._follow:
                    return

    def _open(self) -> Any:
        self._request.resume_token = self.resume_token
        return self._admin.WatchLog(self._request)


async def _reconnecting(open_stream: Callable[[], Any], outage: Outage) -> Any:
    """Yield the responses of a stream, which is opened again after each outage."""
    while True:
        try:
            with _cancelling(open_stream()) as responses:
                async for response in responses:
                    outage.end()
                    yield response
            return
        except grpc.RpcError as error:
            pause = outage.pause(MailingError.from_rpc_error(error))
        await sleep(pause)


@contextmanager
def _cancelling(call: Any) -> Any:
    """Yield the call and cancel it at the end of the block."""
    try:
        yield call
    finally:
        call.cancel()
