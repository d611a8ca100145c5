"""Streams as a caller reads them, with bounded waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from mailing.v1.delivery_service_pb2 import (
    MessageChange,
    WatchMailingRequest,
    WatchMailingResponse,
    WatchMessagesRequest,
    WatchMessagesResponse,
)
from mailing.v1.mailing_pb2 import Mailing
from tests.integration.watch.conftest import Replica

PATIENCE = 20.0


class Messages:
    """One WatchMessages stream: what came, and the last token."""

    def __init__(self, replica: Replica, **request: Any) -> None:
        self._call = replica.delivery.WatchMessages(WatchMessagesRequest(**request))
        self.changes: list[MessageChange] = []
        self.sizes: list[int] = []
        self.token = ""

    async def read(self) -> WatchMessagesResponse:
        """Return the next response."""
        async with asyncio.timeout(PATIENCE):
            response = await self._call.read()
        assert isinstance(response, WatchMessagesResponse), "the stream ended well"
        self.changes += response.changes
        self.sizes.append(len(response.changes))
        self.token = response.resume_token
        assert response.checkpoint == (not response.changes)
        return response

    async def begun(self) -> Messages:
        """Return the stream once it stands where it begins."""
        assert (await self.read()).checkpoint
        return self

    async def until(self, count: int) -> Counter[tuple[int, int]]:
        """Return id and status of the changes once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.changes) < count:
                await self.read()
        return self.seen()

    def seen(self) -> Counter[tuple[int, int]]:
        """Return id and status of the changes so far."""
        return Counter((change.message_id, int(change.status)) for change in self.changes)

    def cancel(self) -> None:
        """Go away."""
        self._call.cancel()


class Progress:
    """One WatchMailing stream."""

    def __init__(self, replica: Replica, mailing_id: int, milliseconds: int | None = None) -> None:
        interval = None if milliseconds is None else Duration(nanos=milliseconds * 1_000_000)
        request = WatchMailingRequest(mailing_id=mailing_id, min_interval=interval)
        self._call = replica.delivery.WatchMailing(request)

    async def read(self) -> Mailing | None:
        """Return the next state, None at the end."""
        async with asyncio.timeout(PATIENCE):
            response = await self._call.read()
            if isinstance(response, WatchMailingResponse):
                return response.mailing
            assert await self._call.code() is grpc.StatusCode.OK
            return None

    async def rest(self) -> list[Mailing]:
        """Return all states to the end, which must be OK."""
        states = []
        while (mailing := await self.read()) is not None:
            states.append(mailing)
        return states
