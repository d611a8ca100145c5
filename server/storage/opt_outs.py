"""Opt-outs by the people themselves: by a message to the gateway, or as the gateway reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from server.domain.clients import OptOutOrigin
from server.domain.events import OptOutSource, client_opted
from server.domain.inbound import ConsentChange
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.phone_memory import remember_opt_out
from server.storage.queries import load_queries

_SQL = load_queries("opt_outs.sql")


class OptOutStore:
    """Sets opt-outs. Every method may raise DatabaseUnavailable; repeating one does no harm."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation

    async def by_endpoint(self, client_ids: Iterable[int], endpoint: str) -> None:
        """Opt clients out of whom their gateway said that they want no messages."""
        buckets = defaultdict[int, list[int]](list)
        for client_id in sorted({*client_ids}):
            buckets[self._installation.bucket_of_client(client_id)].append(client_id)
        for bucket, ids in sorted(buckets.items()):
            await self._database.fetch(*opting(bucket, ids, True, OptOutSource.ENDPOINT, endpoint=endpoint))

    async def by_message(self, changes: Sequence[ConsentChange], endpoint: str) -> None:
        """Do as people wrote. An opt-out of a phone that no client has yet is remembered for the one who gets it."""
        for change in changes:
            rows = await self._database.fetch(*_SQL["find_phones"].bind(phones=[change.phone]))
            for row in rows:
                ids = [row["client_id"]]
                await self._database.fetch(
                    *opting(row["bucket"], ids, change.out, OptOutSource.INBOUND, change.word, endpoint)
                )
            if not rows and change.out:
                await remember_opt_out(self._database, change.phone)


_ORIGINS = {OptOutSource.INBOUND: OptOutOrigin.INBOUND, OptOutSource.ENDPOINT: OptOutOrigin.ENDPOINT}


def opting(
    bucket: int, client_ids: Sequence[int], out: bool, source: OptOutSource, word: str = "", endpoint: str = ""
) -> tuple[Any, ...]:
    """Return the statement that sets the opt-out of clients of a bucket, or takes it back."""
    event = client_opted(0, out, source, endpoint)
    return _SQL["opt_clients"].bind(
        bucket=bucket,
        client_ids=client_ids,
        out=out,
        origin=_ORIGINS[source],
        word=word,
        endpoint=endpoint,
        level=int(event.level),
        event=event.event,
        text=event.text,
        details=orjson.dumps(event.details).decode(),
    )
