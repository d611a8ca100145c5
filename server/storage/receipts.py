"""Receipts in the database: recorded in batches, held until their message is known, and read beside messages."""

from __future__ import annotations

from asyncio import Semaphore, gather
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from zlib import crc32

import asyncpg

from server.domain.messages import message_id, split_message_id
from server.domain.receipts import NO_RECEIPT, MessageReceipt, Receipt, ReceiptCount, Report, strongest
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.queries import load_queries

_SQL = load_queries("receipts.sql")

HOLD = timedelta(days=1)
"""How long a report about an id that no message has is kept."""

WRITES = 3
"""Statements at once: a commit waits for the disk, and those of several buckets do so together."""

MAX_CODES = 100
"""The most receipts and codes of a report."""

_FIRST_ID = 1 << 32
_MOST_DIGITS = 19
_MOST_AT_ONCE = 1000

Found = dict[Report, int]
"""Reports and the ids of the messages they are about."""


class ReceiptStore:
    """Records and reads receipts. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._writing = Semaphore(WRITES)

    async def record(self, reports: Sequence[Report]) -> Found:
        """Record reports, in any order and any number of times; return those whose message is known.

        An id is ours if there is such a message of a mailing of the endpoint, else the gateway's. A report about
        an unknown id is kept: the answer that gives it to a message may not be recorded yet.
        """
        best = strongest(reports)
        found = await self._record(_ours(best))
        others = [one for one in best if one not in found]
        if others:
            found |= await self._record(await self._of_providers(others))
            await self._hold([one for one in others if one not in found])
        known = {(one.endpoint, one.identity): identity for one, identity in found.items()}
        return {one: known[one.endpoint, one.identity] for one in reports if (one.endpoint, one.identity) in known}

    async def match_held(self) -> Found:
        """Record the kept reports whose message has become known, some at a time; return these."""
        rows = await self._database.fetch(*_SQL["find_held"].bind(most=_MOST_AT_ONCE))
        reports = [Report(row["endpoint"], row["provider_id"], Receipt(row["receipt"]), row["code"]) for row in rows]
        if not reports:
            return {}
        found = await self._record(await self._of_providers(reports))
        await self._database.execute(*_SQL["release_held"].bind(**self._held(reports, codes=False)))
        return found

    async def forget_held(self) -> None:
        """Remove kept reports that are too old."""
        await self._database.execute(*_SQL["forget_held"].bind(keep=HOLD))

    async def read(self, identities: Iterable[int]) -> dict[int, MessageReceipt]:
        """Return what is known of messages, by their ids; those of which nothing is known are left out."""
        keys = [split_message_id(identity) for identity in identities]
        if not keys:
            return {}
        rows = await self._database.fetch(
            *_SQL["read_receipts"].bind(
                buckets=[self._installation.bucket_of_client(client) for _, client in keys],
                mailing_ids=[mailing for mailing, _ in keys],
                client_ids=[client for _, client in keys],
            )
        )
        return {
            message_id(row["mailing_id"], row["client_id"]): MessageReceipt(
                Receipt(row["receipt"]), row["at"] if row["receipt"] else None, row["code"], row["provider_id"]
            )
            for row in rows
        }

    async def read_one(self, identity: int) -> MessageReceipt:
        """Return what is known of a message."""
        return (await self.read([identity])).get(identity, NO_RECEIPT)

    async def _record(self, chosen: Mapping[Report, int]) -> Found:
        """Record reports about these messages, some buckets at a time; return those that there are."""
        groups = defaultdict[tuple[int, str], list[tuple[Report, int, int]]](list)
        for report, identity in chosen.items():
            mailing_id, client_id = split_message_id(identity)
            groups[self._installation.bucket_of_client(client_id), report.endpoint].append(
                (report, mailing_id, client_id)
            )
        # All of them end before an error is raised: none goes on behind its caller.
        each = await gather(*(self._record_group(*key, group) for key, group in groups.items()), return_exceptions=True)
        found: Found = {}
        for known in each:
            if isinstance(known, BaseException):
                raise known
            found |= known
        return found

    async def _record_group(self, bucket: int, endpoint: str, group: Sequence[tuple[Report, int, int]]) -> Found:
        best = _one_per_message(group)
        statement = _SQL["record_receipts"].bind(
            bucket=bucket,
            endpoint=endpoint,
            mailing_ids=[mailing for mailing, _ in best],
            client_ids=[client for _, client in best],
            receipts=[report.receipt for report in best.values()],
            codes=[report.code for report in best.values()],
        )
        async with self._writing:
            rows = await self._database.fetch(*statement)
        known = {(row["mailing_id"], row["client_id"]) for row in rows}
        return {one: message_id(mailing, client) for one, mailing, client in group if (mailing, client) in known}

    async def _of_providers(self, reports: Sequence[Report]) -> Found:
        identities = list({report.identity for report in reports})
        rows = await self._database.fetch(*_SQL["find_by_provider"].bind(provider_ids=identities))
        known = {row["provider_id"]: message_id(row["mailing_id"], row["client_id"]) for row in rows}
        return {one: known[one.identity] for one in reports if one.identity in known}

    async def _hold(self, reports: Sequence[Report]) -> None:
        if reports:
            await self._database.execute(*_SQL["hold_receipts"].bind(**self._held(reports)))

    def _held(self, reports: Sequence[Report], codes: bool = True) -> dict[str, list[object]]:
        buckets = self._installation.buckets
        columns: dict[str, list[object]] = {
            "buckets": [crc32(one.identity.encode("utf-8", "replace")) % buckets for one in reports],
            "endpoints": [one.endpoint for one in reports],
            "provider_ids": [one.identity for one in reports],
            "receipts": [one.receipt for one in reports],
        }
        return columns | ({"codes": [one.code for one in reports]} if codes else {})


def count_of(row: asyncpg.Record) -> ReceiptCount:
    """Return how many messages have one receipt and code."""
    return ReceiptCount(Receipt(row["receipt"]), row["code"], row["n"])


def _ours(reports: Sequence[Report]) -> Found:
    """Return the reports whose ids may be ours."""
    found: Found = {}
    for report in reports:
        text = report.identity
        if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and _FIRST_ID <= int(text) < 1 << 63:
            found[report] = int(text)
    return found


def _one_per_message(group: Sequence[tuple[Report, int, int]]) -> dict[tuple[int, int], Report]:
    """Return the report that holds for each message: two ids may lead to the same one."""
    best: dict[tuple[int, int], Report] = {}
    for report, *key in group:
        place = (key[0], key[1])
        if place not in best or report.receipt > best[place].receipt:
            best[place] = report
    return best
