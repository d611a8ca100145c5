"""Merges the staged rows of an import into the clients, inside the import's transaction.

Every row either is new, or changes its client, or is stored exactly so. What a row does not speak of
stays, also where somebody else changes it at the same time; new clients take over what is remembered
of their phones. Everybody who opted out or in by it stands in the event log.
"""

from __future__ import annotations

import logging
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

import asyncpg

from server.domain.client_import import ImportCounts, ImportOptions, RowErrors
from server.domain.errors import Conflict, FieldViolation
from server.domain.events import OptOutSource, client_opted
from server.domain.validation import MAX_ATTRIBUTES
from server.storage.client_numbers import ClientNumbers
from server.storage.database import TRIES, RaceLost
from server.storage.events import record
from server.storage.faults import RACES
from server.storage.queries import load_queries

_SQL = load_queries("client_import.sql")

MERGE_TIMEOUT = 900.0
"""Seconds that one statement of the merge may take; ten million rows take minutes."""

_BAD_FIELDS = {
    "timezone": "is required for a phone that is new: an IANA name such as Europe/Moscow",
    "attributes": f"would be more than {MAX_ATTRIBUTES} with those that are stored: remove some first",
}


class ClientMerge:
    """One merge, on the connection whose transaction has staged the rows."""

    def __init__(
        self, connection: asyncpg.Connection, options: ImportOptions, errors: RowErrors, numbers: ClientNumbers
    ) -> None:
        self._connection = connection
        self._options = options
        self._errors = errors
        self._names = {"attribute_names": options.mask.attribute_names}
        self._numbers = numbers
        self._left_out = 0
        self._reported: set[int] = set()
        self.taken: list[range] = []
        """The numbers taken for new clients."""

    async def run(self) -> ImportCounts:
        """Merge what was staged; begin again when somebody wrote the same clients meanwhile.

        Raise InvalidFields for rows that only what is stored shows to be bad, and Conflict.
        """
        for _ in range(TRIES):
            try:
                async with self._connection.transaction():  # a savepoint
                    return await self._merge()
            except (RaceLost, *RACES):
                continue
        raise Conflict

    async def record(self) -> None:
        """Record what was written, for running mailings, and who opted out or in, in the event log."""
        await self._record_changes()
        await self._record_opt_outs()

    async def _merge(self) -> ImportCounts:
        self._left_out = 0
        await self._execute("create_latest", **self._names, most_attributes=MAX_ATTRIBUTES)
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
        statement = _SQL["count_latest"].bind(left_out=self._left_out)
        return await self._connection.fetchrow(*statement, timeout=MERGE_TIMEOUT)

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
        """Report the rows that only what is stored shows to be bad. Raise InvalidFields unless they are left out."""
        statement = _SQL["find_bad_rows"].bind()
        rows = await self._connection.fetch(*statement, timeout=MERGE_TIMEOUT)
        for row in rows:
            if row["position"] not in self._reported:  # by a try before this one
                self._reported.add(row["position"])
                self._errors.add(row["position"], [FieldViolation(row["field"], _BAD_FIELDS[row["field"]])])
        if not self._options.returns_errors:
            self._errors.check()
        if rows:
            self._left_out += await self._execute("leave_out", positions=[row["position"] for row in rows])

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
