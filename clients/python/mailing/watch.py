"""The service's streams as plain iterators that reconnect.

When a replica stops they continue on another one. `MessageWatch` resumes after the last
change and yields each change once. An error that is not temporary is raised as `MailingError`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from mailing.builders import new_duration
from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import WatchDispatchRequest, WatchDispatchResponse, WatchLogRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.delivery_service_pb2 import (
    MessageChange,
    WatchMailingRequest,
    WatchMessagesRequest,
    WatchMessagesResponse,
)
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before the next attempt to reconnect; they double, with random jitter."""

_ENDED = {"READER_TOO_SLOW", "SHUTTING_DOWN"}
"""Reasons with which a stream ends that can be resumed."""

_Key = tuple[int, int, int, int]


def watch_mailing(
    delivery: DeliveryServiceStub,
    mailing_id: int,
    *,
    min_interval: float | None = None,
    patience: float | None = None,
) -> Iterator[Mailing]:
    """Yield the mailing as it is now and after each change, until its final state.

    `min_interval` is the minimum time between two states in seconds: 0.25 by default, at least
    0.05. After the first response, wait up to `patience` seconds for a service that cannot be
    reached (None: without limit). Raise MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchMailingRequest(mailing_id=mailing_id, min_interval=interval)
    for response in _reconnecting(lambda: delivery.WatchMailing(request), patience):
        yield response.mailing


def watch_dispatch(
    admin: AdminServiceStub, *, min_interval: float | None = None, patience: float | None = None
) -> Iterator[WatchDispatchResponse]:
    """Yield replicas and settings about every `min_interval` seconds (1 by default, at least 0.1), without end.

    After the first response, wait up to `patience` seconds for a service that cannot be reached
    (None: without limit). Raise MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchDispatchRequest(min_interval=interval)
    return _reconnecting(lambda: admin.WatchDispatch(request), patience)


class MessageWatch(Iterator[MessageChange]):
    """Yields the changes of messages, without end.

    `resume_token` is the position after the last response that was yielded completely. Another
    watch of the same query continues there, and yields the changes since then again.
    """

    def __init__(
        self,
        delivery: DeliveryServiceStub,
        mailing_id: int = 0,
        statuses: Iterable[Message.Status.ValueType] = (),
        *,
        resume_token: str = "",
        from_start: bool = False,
        patience: float | None = None,
    ) -> None:
        """Watch messages of one mailing, or (0) of all, for changes to `statuses`, or to any.

        Begin after `resume_token`; without one now, or with the oldest change that is kept. After
        the first response, wait up to `patience` seconds for a service that cannot be reached.
        """
        self.resume_token = resume_token
        self._request = WatchMessagesRequest(
            mailing_id=mailing_id, statuses=statuses, resume_token=resume_token, from_start=from_start
        )
        self._changes = self._all(delivery, patience)

    def __next__(self) -> MessageChange:
        """Wait for the next change and return it; raise MailingError."""
        return next(self._changes)

    def close(self) -> None:
        """End the stream."""
        self._changes.close()

    def _all(self, delivery: DeliveryServiceStub, patience: float | None) -> Generator[MessageChange, None, None]:
        deduplicator = _Deduplicator()

        def open_stream() -> Any:
            deduplicator.resume()
            self._request.resume_token = self.resume_token
            return delivery.WatchMessages(self._request)

        for response in _reconnecting(open_stream, patience):
            yield from deduplicator.new_changes(response)
            self.resume_token = response.resume_token


class LogWatch(Iterator[LogEntry]):
    """Yields the entries of the event log: those that are kept and, with `follow`, new ones.

    `resume_token` is the position after the last response that was yielded completely. Another
    watch of the same query continues there.
    """

    def __init__(
        self, admin: AdminServiceStub, request: WatchLogRequest, *, follow: bool = True, patience: float | None = None
    ) -> None:
        """Read the entries that `request` asks for, from its resume token on or else from the oldest that is kept.

        After the first response, wait up to `patience` seconds for a service that cannot be reached.
        """
        self.resume_token = request.resume_token
        self._request = request
        self._follow = follow
        self._entries = self._all(admin, patience)

    def __next__(self) -> LogEntry:
        """Wait for the next entry and return it; raise MailingError."""
        return next(self._entries)

    def close(self) -> None:
        """End the stream."""
        self._entries.close()

    def _all(self, admin: AdminServiceStub, patience: float | None) -> Generator[LogEntry, None, None]:
        def open_stream() -> Any:
            self._request.resume_token = self.resume_token
            return admin.WatchLog(self._request)

        for response in _reconnecting(open_stream, patience):
            yield from response.entries
            self.resume_token = response.resume_token
            if response.checkpoint and not self._follow:
                return


class _Deduplicator:
    """Drops what a resumed stream repeats: the changes that came with the token it resumes from.

    The service may send one batch in several responses; only the token of the last one is
    after the whole batch.
    """

    def __init__(self) -> None:
        self._token = ""
        self._same: list[WatchMessagesResponse] = []
        self._seen: set[_Key] = set()

    def new_changes(self, response: WatchMessagesResponse) -> Iterator[MessageChange]:
        """Yield the changes of a response that did not come before the stream was resumed."""
        if response.resume_token != self._token:
            self._token, self._same = response.resume_token, []
        self._same.append(response)
        if not self._seen:
            yield from response.changes
            return
        fresh = [change for change in response.changes if _key(change) not in self._seen]
        if len(fresh) == len(response.changes) > 0:
            self._seen.clear()  # everything that could be repeated is past
        yield from fresh

    def resume(self) -> None:
        """Expect repeated changes, since the stream is opened again."""
        self._seen |= {_key(change) for response in self._same for change in response.changes}


def _key(change: MessageChange) -> _Key:
    return change.message_id, int(change.status), change.time.seconds, change.time.nanos


def _reconnecting(open_stream: Callable[[], Any], patience: float | None) -> Iterator[Any]:
    """Yield the responses of a stream, which is opened again after each outage."""
    outage = _Outage(patience)
    while True:
        try:
            with _cancelling(open_stream()) as responses:
                for response in responses:
                    outage.end()
                    yield response
            return
        except grpc.RpcError as error:
            outage.wait_or_raise(error)


class _Outage:
    """How long the service has been unreachable, and how long to wait for it."""

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._answered_at: float | None = None
        self._pause = FIRST_PAUSE

    def end(self) -> None:
        """Note that the service answered."""
        self._answered_at, self._pause = time.monotonic(), FIRST_PAUSE

    def wait_or_raise(self, error: grpc.RpcError) -> None:
        """Wait before the next attempt, or raise the error as MailingError when waiting does not help."""
        failure = MailingError.from_rpc_error(error)
        if self._answered_at is None or not _temporary(failure):
            raise failure from error
        if self._patience is not None and time.monotonic() - self._answered_at > self._patience:
            raise failure from error
        time.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - many clients must not return at once
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def _temporary(failure: MailingError) -> bool:
    return failure.code is grpc.StatusCode.UNAVAILABLE or failure.reason in _ENDED


@contextmanager
def _cancelling(call: Any) -> Iterator[Any]:
    """Yield the call and cancel it at the end of the block."""
    try:
        yield call
    finally:
        call.cancel()
