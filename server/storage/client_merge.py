"""Merges the staged rows of an import into the clients, inside the import's transaction.

Every row either is new, or changes its client, or is stored exactly so. What a row does not speak of
stays, also where somebody else changes it at the same time; new clients take over what is remembered
of their phones. Everybody who opted out or in by it stands in the event log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

import asyncpg

from server.domain.client_import import ImportMask
from server.domain.errors import Conflict
from server.domain.events import OptOutSource, client_opted
from server.domain.validation import MAX_ATTRIBUTES, Violations
from server.storage.client_numbers import ClientNumbers
from server.storage.database import RACES, TRIES, RaceLost
from server.storage.events import record
from server.storage.queries import load_queries

_SQL = load_queries("client_import.sql")

MERGE_TIMEOUT = 900.0
"""Seconds that one statement of the merge may take; ten million rows take minutes."""

_BAD_FIELDS = {
    "timezone": "is required for a phone that is new: an IANA name such as Europe/Moscow",
    "attributes": f"would be more than {MAX_ATTRIBUTES} with those that are stored: remove some first",
}


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import did. Rows that a later row replaced count as updated."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0


class ClientMerge:
    """One merge, on the connection whose transaction has staged the rows."""

    def __init__(self, connection: asyncpg.Connection, mask: ImportMask, numbers: ClientNumbers) -> None:
        self._connection = connection
        self._names = {"attribute_names": mask.attribute_names}
        self._numbers = numbers
        self.taken: list[range] = []
        """The numbers taken for new clients."""

    async def run(self) -> ImportCounts:
        """Merge what was staged; begin again when somebody wrote the same clients meanwhile.

        Raise InvalidFields for rows that only what is stored shows to be bad, and Conflict.
        """
        for _ in range(TRIES):
            try:
                async with self._connection.transaction():  # a savepoint
                    counts = await self._merge()
                    break
            except (RaceLost, *RACES):
                continue
        else:
            raise Conflict
        await self._record_changes()
        await self._record_opt_outs()
        return counts

    async def _merge(self) -> ImportCounts:
        await self._execute("create_latest", **self._names)
        await self._check()
        found = await self._count()
        await self._take_numbers(found["fresh"])
        if found["fresh"] and not await self._claim_phones(found["fresh"]):
            found = await self._count()
        rows, phones, fresh, changed = found["staged"], found["phones"], found["fresh"], found["changed"]
        if fresh:
            await self._insert_fresh()
        if changed and changed != await self._value("update_changed_clients", **self._names):
            raise RaceLost
        return ImportCounts(created=fresh, updated=changed + rows - phones, unchanged=phones - fresh - changed)

    async def _count(self) -> asyncpg.Record:
        return await self._connection.fetchrow(*_SQL["count_latest"].bind(), timeout=MERGE_TIMEOUT)

    async def _take_numbers(self, fresh: int) -> None:
        missing = fresh - sum(map(len, self.taken))
        if missing > 0:
            self.taken += await self._numbers.take(self._connection, missing)

    @property
    def _identity(self) -> dict[str, Any]:
        """How the numbers of new rows follow from their count, in SQL."""
        starts = [1, *(1 + total for total in accumulate(map(len, self.taken)))]
        offsets = [numbers.start - start for numbers, start in zip(self.taken, starts, strict=False)]
        return {"starts": starts[: len(offsets)], "offsets": offsets}

    async def _check(self) -> None:
        statement = _SQL["find_bad_rows"].bind(**self._names, most_attributes=MAX_ATTRIBUTES)
        violations = Violations()
        for row in await self._connection.fetch(*statement, timeout=MERGE_TIMEOUT):
            violations.add(f"clients[{row['position']}].{row['field']}", _BAD_FIELDS[row["field"]])
        violations.check()

    async def _insert_fresh(self) -> None:
        if await self._value("any_memories"):
            await self._execute("recall_phones")
        await self._execute("insert_fresh_clients", **self._identity)

    async def _claim_phones(self, fresh: int) -> bool:
        """Make the phones of the `fresh` rows ours; return whether nobody else had taken one."""
        try:
            async with self._connection.transaction():
                await self._execute("insert_fresh_phones", **self._identity)
                return True
        except asyncpg.UniqueViolationError:
            await self._claim_what_is_left(fresh)
            return False

    async def _claim_what_is_left(self, fresh: int) -> None:
        """Claim the phones one has not lost to others, and turn to their clients for the rest.

        A phone that is ours stays so until the end, so every turn has fewer left.
        """
        claimed = 0
        for _ in range(TRIES):
            claimed += await self._execute("claim_fresh_phones", **self._identity)
            if claimed == fresh:
                return
            fresh -= await self._execute("adopt_taken_phones", **self._names, **self._identity)
            if claimed == fresh:
                return
        raise RaceLost

    async def _record_changes(self) -> None:
        await self._connection.execute(*_SQL["create_touched"].bind())
        await self._connection.execute(*_SQL["keep_touched_plain"].bind())
        await self._execute("fill_touched", **self._identity)
        for row in await self._connection.fetch(*_SQL["list_touched_buckets"].bind()):
            await self._connection.execute(*_SQL["record_imported_changes"].bind(bucket=row["bucket"]))

    async def _record_opt_outs(self) -> None:
        rows = await self._connection.fetch(*_SQL["list_opted"].bind(**self._identity), timeout=MERGE_TIMEOUT)
        for bucket, group in groupby(rows, itemgetter("bucket")):
            opted = [client_opted(row["id"], row["opted_out"], OptOutSource(row["source"])) for row in group]
            await record(self._connection, *opted, bucket=bucket, loudest=logging.DEBUG)

    async def _execute(self, name: str, **arguments: Any) -> int:
        """Execute a statement; return how many rows its tag, such as `INSERT 0 5`, tells of."""
        tag = await self._connection.execute(*_SQL[name].bind(**arguments), timeout=MERGE_TIMEOUT)
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def _value(self, name: str, **arguments: Any) -> Any:
        return await self._connection.fetchval(*_SQL[name].bind(**arguments), timeout=MERGE_TIMEOUT)
