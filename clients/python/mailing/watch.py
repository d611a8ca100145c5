"""The service's streams as plain iterators that outlive their connection.

When a replica goes away they go on by themselves, on whichever one answers. `MessageWatch`
goes on behind what it was given and hands each change on once. An error that waiting does
not cure is raised as `MailingError`.
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
"""Seconds between two attempts to go on; the pauses double, with some randomness."""

_ENDED = {"READER_TOO_SLOW", "SHUTTING_DOWN"}
"""Reasons for which a stream ends though nothing is wrong."""

_Key = tuple[int, int, int, int]


def watch_mailing(
    delivery: DeliveryServiceStub,
    mailing_id: int,
    *,
    min_interval: float | None = None,
    patience: float | None = None,
) -> Iterator[Mailing]:
    """Yields the mailing as it is now and after each change, until its final state.

    `min_interval` is the least time between two of them, in seconds: 0.25 by default, at least
    0.05. Once something came, a service that is away is waited for, up to `patience` seconds
    (None: for ever). Raises MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchMailingRequest(mailing_id=mailing_id, min_interval=interval)
    absence = _Absence(patience)
    while True:
        try:
            with _cancelled_at_end(delivery.WatchMailing(request)) as responses:
                for response in responses:
                    absence.end()
                    yield response.mailing
                return
        except grpc.RpcError as error:
            absence.wait_or_raise(error)


def watch_dispatch(
    admin: AdminServiceStub, *, min_interval: float | None = None, patience: float | None = None
) -> Iterator[WatchDispatchResponse]:
    """Yields replicas and settings about once in `min_interval` seconds (1 by default, at least 0.1), without end.

    Once something came, a service that is away is waited for, up to `patience` seconds (None:
    for ever). Raises MailingError.
    """
    interval = None if min_interval is None else new_duration(min_interval)
    request = WatchDispatchRequest(min_interval=interval)
    absence = _Absence(patience)
    while True:
        try:
            with _cancelled_at_end(admin.WatchDispatch(request)) as responses:
                for response in responses:
                    absence.end()
                    yield response
            return
        except grpc.RpcError as error:
            absence.wait_or_raise(error)


class MessageWatch(Iterator[MessageChange]):
    """The changes of messages, one after the other, without end.

    `resume_token` is behind the last change handed on whose whole response was; kept and given
    to another watch of the same query, that goes on there. Changes since are handed on again.
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
        """Watches messages of one mailing, or (0) of all, for changes to `statuses`, or to any.

        Begins behind `resume_token`; without one now, or from the start of what is kept. Once
        something came, a service that is away is waited for, up to `patience` seconds.
        """
        self.resume_token = resume_token
        self._request = WatchMessagesRequest(
            mailing_id=mailing_id, statuses=statuses, resume_token=resume_token, from_start=from_start
        )
        self._open: Callable[..., Any] = delivery.WatchMessages
        self._absence = _Absence(patience)
        self._changes = self._all()

    def __next__(self) -> MessageChange:
        """Returns the next change, waiting for it. Raises MailingError."""
        return next(self._changes)

    def close(self) -> None:
        """Ends the stream."""
        self._changes.close()

    def _all(self) -> Generator[MessageChange, None, None]:
        repeats = _Repeats()
        while True:
            self._request.resume_token = self.resume_token
            try:
                with _cancelled_at_end(self._open(self._request)) as responses:
                    for response in responses:
                        self._absence.end()
                        yield from repeats.without(response)
                        self.resume_token = response.resume_token
                return
            except grpc.RpcError as error:
                self._absence.wait_or_raise(error)
                repeats.expect()


class LogWatch(Iterator[LogEntry]):
    """The entries of the log, each once: those that are kept and, with `follow`, those that come.

    `resume_token` is behind the last response handed on whole; given to another watch of the
    same query, that goes on there.
    """

    def __init__(
        self,
        admin: AdminServiceStub,
        mailing_id: int = 0,
        message_id: int = 0,
        client_id: int = 0,
        level: LogEntry.Level.ValueType = LogEntry.LEVEL_UNSPECIFIED,
        *,
        resume_token: str = "",
        follow: bool = True,
        patience: float | None = None,
    ) -> None:
        """Reads what is about a mailing, a message and a client (0: any), of at least `level`.

        Begins behind `resume_token`, without one with the oldest entry kept. Once something
        came, a service that is away is waited for, up to `patience` seconds.
        """
        self.resume_token = resume_token
        self._request = WatchLogRequest(
            mailing_id=mailing_id, message_id=message_id, client_id=client_id, level=level, resume_token=resume_token
        )
        self._open: Callable[..., Any] = admin.WatchLog
        self._follow = follow
        self._absence = _Absence(patience)
        self._entries = self._all()

    def __next__(self) -> LogEntry:
        """Returns the next entry, waiting for it. Raises MailingError."""
        return next(self._entries)

    def close(self) -> None:
        """Ends the stream."""
        self._entries.close()

    def _all(self) -> Generator[LogEntry, None, None]:
        while True:
            self._request.resume_token = self.resume_token
            try:
                with _cancelled_at_end(self._open(self._request)) as responses:
                    for response in responses:
                        self._absence.end()
                        yield from response.entries
                        self.resume_token = response.resume_token
                        if response.checkpoint and not self._follow:
                            return
                return
            except grpc.RpcError as error:
                self._absence.wait_or_raise(error)


class _Repeats:
    """Knows what a resumed stream may bring again: what came with the token that it resumes from.

    The service sends a large piece of work in several responses, and only the last one's
    token is behind it.
    """

    def __init__(self) -> None:
        self._token = ""
        self._same: list[WatchMessagesResponse] = []
        self._seen: set[_Key] = set()

    def without(self, response: WatchMessagesResponse) -> Iterator[MessageChange]:
        """Yields the changes of a response that were not there before the stream was resumed."""
        if response.resume_token != self._token:
            self._token, self._same = response.resume_token, []
        self._same.append(response)
        if not self._seen:
            yield from response.changes
            return
        fresh = [change for change in response.changes if _key(change) not in self._seen]
        if len(fresh) == len(response.changes) > 0:
            self._seen.clear()  # behind all that could be repeated
        yield from fresh

    def expect(self) -> None:
        """Says that the stream is resumed."""
        self._seen |= {_key(change) for response in self._same for change in response.changes}


def _key(change: MessageChange) -> _Key:
    return change.message_id, int(change.status), change.time.seconds, change.time.nanos


class _Absence:
    """How long the service has been away, and how long it is waited for."""

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._answered_at: float | None = None
        self._pause = FIRST_PAUSE

    def end(self) -> None:
        """Says that the service answered."""
        self._answered_at, self._pause = time.monotonic(), FIRST_PAUSE

    def wait_or_raise(self, error: grpc.RpcError) -> None:
        """Waits before the next attempt, or raises what the error means for the caller."""
        failure = MailingError.from_rpc_error(error)
        if self._answered_at is None or not _passing(failure):
            raise failure from error
        if self._patience is not None and time.monotonic() - self._answered_at > self._patience:
            raise failure from error
        time.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - many clients must not return at once
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def _passing(failure: MailingError) -> bool:
    return failure.code is grpc.StatusCode.UNAVAILABLE or failure.reason in _ENDED


@contextmanager
def _cancelled_at_end(call: Any) -> Iterator[Any]:
    """Lends a call whose stream ends with the block, however that ends."""
    try:
        yield call
    finally:
        call.cancel()
