"""Calls that act outside of the database: what they answered is kept by their request id, so that none acts twice.

The row comes before the act and its answer after it. A call whose row has no answer is going on, on any
replica, or its replica was killed: then nobody knows what it did, and a repeated call is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from server.domain.errors import RequestUnanswered
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall, Requests, check_same

_SQL = load_queries("request_ids.sql")
_INTERVAL = 0.1  # seconds between two looks at a call that another connection has made

Act = Callable[[], Awaitable[bytes]]


class AnsweredCalls:
    """Makes calls once. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._requests = Requests(installation)
        self._acting: set[asyncio.Task[bytes]] = set()

    async def once(self, call: CreatingCall | None, act: Act) -> bytes:
        """Return what `act` returns, or what it returned when the same call was made before.

        It goes on when the caller is gone. What it raises is raised, and the call may be made again. Raise
        RequestIdReused, and RequestUnanswered when the first call has not answered within a minute.
        """
        if call is None:
            return await act()
        async with self._database.connection() as connection:
            is_first = await self._requests.record(connection, call, 0)
        if not is_first:
            answer = await self._answer_of_first(call)
            return await self.once(call, act) if answer is None else answer
        acting = asyncio.create_task(self._act(call, act), name=call.method)
        self._acting.add(acting)
        acting.add_done_callback(self._acting.discard)
        return await asyncio.shield(acting)

    async def _act(self, call: CreatingCall, act: Act) -> bytes:
        try:
            answer = await act()
        except Exception:
            await self._database.execute(*_SQL["forget_request"].bind(**self._key(call)))
            raise
        await self._database.execute(*_SQL["record_answer"].bind(answer=answer, **self._key(call)))
        return answer

    async def _answer_of_first(self, call: CreatingCall) -> bytes | None:
        """Wait for it and return it, None if that call has failed and may be made again."""
        while True:
            row = await self._database.fetchrow(*_SQL["find_answer"].bind(**self._key(call)))
            if row is None:
                return None
            check_same(row, call)
            if row["answer"] is not None:
                return bytes(row["answer"])
            if row["overdue"]:
                raise RequestUnanswered
            await asyncio.sleep(_INTERVAL)

    def _key(self, call: CreatingCall) -> dict[str, object]:
        return {"bucket": self._installation.bucket_of_request(call.id), "request_id": call.id}
