"""What pages read, as topics: streams of the API where there is one, else a call repeated while somebody looks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import (
    GetDispatchRequest,
    GetServerInfoRequest,
    ListEndpointsRequest,
    WatchDispatchRequest,
    WatchDispatchResponse,
    WatchLogRequest,
)
from mailing.v1.delivery_service_pb2 import WatchMailingRequest
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, ListMailingsRequest
from mailing.v1.message_pb2 import Message
from mailing.v1.message_service_pb2 import GetMessageRequest, ListAttemptsRequest, ListMessagesRequest
from mailing.v1.schedule_service_pb2 import GetScheduleRequest, ListSchedulesRequest
from server.console.service import Credentials, Service
from server.console.topics import Read

STREAM_INTERVAL = Duration(nanos=500_000_000)
LIST_SECONDS = 1.0
REPORT_SECONDS = 3.0
KEPT_RATES = 120
"""Samples of the rate behind the chart of the overview: a minute at two a second."""

KEPT_ENTRIES = 300
"""Log entries that a page shows."""

ENDED = (Mailing.STATE_COMPLETED, Mailing.STATE_CANCELLED)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What WatchDispatch tells, and how the rate of all replicas went, as (seconds since 1970, messages per second)."""

    answer: WatchDispatchResponse
    rates: Sequence[tuple[float, float]]

    @property
    def rate(self) -> float:
        """Messages per second of all replicas together."""
        return sum(one.rate_per_second for one in self.answer.replicas)

    @property
    def backlog(self) -> int:
        """Messages that are due and not sent."""
        return max((one.backlog for one in self.answer.replicas), default=0)

    @property
    def in_flight(self) -> int:
        """Requests to endpoints at this moment."""
        return sum(one.in_flight for one in self.answer.replicas)


class Reads:
    """Makes reads of one service in the name of one person."""

    def __init__(self, service: Service, who: Credentials) -> None:
        self._service = service
        self._who = who

    def dispatch(self) -> Read:
        """Read the dispatchers, live."""
        return self._read("dispatch", _Dispatching(self._service, self._who).__call__)

    def mailing(self, mailing_id: int) -> Read:
        """Read a mailing, live until it has ended."""
        return self._read(("mailing", mailing_id), lambda: self._mailing(mailing_id))

    def report(self, mailing_id: int) -> Read:
        """Read the report of a mailing every few seconds until it has ended."""

        async def ask() -> object:
            request = GetMailingReportRequest(mailing_id=mailing_id)
            return await self._service.call(self._service.mailings.GetMailingReport, request, self._who)

        def over(report: object) -> bool:
            return report.mailing.state in ENDED  # type: ignore[attr-defined]

        return self._read(("report", mailing_id), lambda: _repeated(ask, REPORT_SECONDS, over))

    def mailings(self, request: ListMailingsRequest) -> Read:
        """Read one page of mailings every second."""

        async def ask() -> object:
            return await self._service.call(self._service.mailings.ListMailings, request, self._who)

        return self._read(("mailings", request.SerializeToString(deterministic=True)), lambda: _repeated(ask))

    def schedules(self, request: ListSchedulesRequest) -> Read:
        """Read one page of schedules every few seconds."""

        async def ask() -> object:
            return await self._service.call(self._service.schedules.ListSchedules, request, self._who)

        key = ("schedules", request.SerializeToString(deterministic=True))
        return self._read(key, lambda: _repeated(ask, REPORT_SECONDS))

    def schedule(self, schedule_id: int) -> Read:
        """Read a schedule every few seconds."""

        async def ask() -> object:
            request = GetScheduleRequest(schedule_id=schedule_id)
            return (await self._service.call(self._service.schedules.GetSchedule, request, self._who)).schedule

        return self._read(("schedule", schedule_id), lambda: _repeated(ask, REPORT_SECONDS))

    def failures(self, mailing_id: int, most: int = 20) -> Read:
        """Read the messages of a mailing that failed, with the last attempt of each."""
        statuses = [Message.STATUS_FAILED, Message.STATUS_UNKNOWN]
        request = ListMessagesRequest(mailing_id=mailing_id, statuses=statuses, page_size=most)

        async def ask() -> object:
            return await self._service.call(self._service.messages.ListMessages, request, self._who)

        return self._read(("failures", mailing_id), lambda: _repeated(ask, REPORT_SECONDS))

    def messages(self, request: ListMessagesRequest) -> Read:
        """Read one page of messages every few seconds."""

        async def ask() -> object:
            return await self._service.call(self._service.messages.ListMessages, request, self._who)

        key = ("messages", request.SerializeToString(deterministic=True))
        return self._read(key, lambda: _repeated(ask, REPORT_SECONDS))

    def message(self, message_id: int) -> Read:
        """Read a message every second until it is settled."""

        async def ask() -> object:
            request = GetMessageRequest(message_id=message_id)
            return await self._service.call(self._service.messages.GetMessage, request, self._who)

        return self._read(("message", message_id), lambda: _repeated(ask))

    def attempts(self, message_id: int) -> Read:
        """Read the failed attempts of a message every second."""

        async def ask() -> object:
            request = ListAttemptsRequest(message_id=message_id)
            return await self._service.call(self._service.messages.ListAttempts, request, self._who)

        return self._read(("attempts", message_id), lambda: _repeated(ask))

    def endpoints(self) -> Read:
        """Read the endpoints every second."""

        async def ask() -> object:
            return await self._service.call(self._service.admin.ListEndpoints, ListEndpointsRequest(), self._who)

        return self._read("endpoints", lambda: _repeated(ask))

    def server_info(self) -> Read:
        """Read version, schema and settings, seldom."""

        async def ask() -> object:
            return await self._service.call(self._service.admin.GetServerInfo, GetServerInfoRequest(), self._who)

        return self._read("server", lambda: _repeated(ask, 30.0))

    def log(self, request: WatchLogRequest) -> Read:
        """Read the newest log entries, live."""
        key = ("log", request.SerializeToString(deterministic=True))
        return self._read(key, _Tail(self._service, request, self._who).__call__)

    def _read(self, what: object, source: Callable[[], AsyncIterator[object]]) -> Read:
        return Read((self._who.digest, what), source)

    async def _mailing(self, mailing_id: int) -> AsyncIterator[Mailing]:
        request = WatchMailingRequest(mailing_id=mailing_id, min_interval=STREAM_INTERVAL)
        async for answer in self._service.stream(self._service.delivery.WatchMailing, request, self._who):
            yield answer.mailing


class _Dispatching:
    """The dispatchers with the latest rates; begun again, it keeps these."""

    def __init__(self, service: Service, who: Credentials) -> None:
        self._service = service
        self._who = who
        self._rates: deque[tuple[float, float]] = deque(maxlen=KEPT_RATES)

    async def __call__(self) -> AsyncIterator[Dispatch]:
        """Yield each state with the rates until then, at first one that is surely not older than this call."""
        now = await self._service.call(self._service.admin.GetDispatch, GetDispatchRequest(), self._who)
        yield Dispatch(WatchDispatchResponse(replicas=now.replicas, settings=now.settings), tuple(self._rates))
        # A stream may begin with what another one got half its interval ago.
        await asyncio.sleep(STREAM_INTERVAL.ToTimedelta().total_seconds() / 2)
        request = WatchDispatchRequest(min_interval=STREAM_INTERVAL)
        async for answer in self._service.stream(self._service.admin.WatchDispatch, request, self._who):
            self._rates.append((time(), sum(one.rate_per_second for one in answer.replicas)))
            yield Dispatch(answer, tuple(self._rates))


class _Tail:
    """The newest log entries, the newest first; begun again, it goes on where it was, without a gap."""

    def __init__(self, service: Service, request: WatchLogRequest, who: Credentials) -> None:
        self._service = service
        self._request = request
        self._who = who
        self._entries: deque[LogEntry] = deque(maxlen=KEPT_ENTRIES)
        self._told = False

    async def __call__(self) -> AsyncIterator[Sequence[LogEntry]]:
        """Yield the entries once all that were kept are read, and then with each new one."""
        try:
            async for answer in self._service.stream(self._service.admin.WatchLog, self._request, self._who):
                self._entries.extendleft(answer.entries)
                self._request.resume_token = answer.resume_token
                self._told = self._told or answer.checkpoint
                if self._told:
                    yield tuple(self._entries)
        except MailingError as error:
            if error.code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT):
                self._request.resume_token, self._told = "", False
                self._entries.clear()
                raise MailingError(grpc.StatusCode.UNAVAILABLE, error.reason, error.message) from error
            raise


async def _repeated(
    ask: Callable[[], Awaitable[T]], pause: float = LIST_SECONDS, over: Callable[[T], bool] = lambda _: False
) -> AsyncIterator[T]:
    """Yield the answers that differ from the one before, until one is the last."""
    last: T | None = None
    while True:
        answer = await ask()
        if answer != last:
            last = answer
            yield answer
        if over(answer):
            return
        await asyncio.sleep(pause)
