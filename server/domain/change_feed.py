"""The change feed: its entries, and what a reader selects of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dispatcher.model.states import Status
from server.domain.pagination import query_digest


@dataclass(slots=True, eq=False)
class Entry:
    """One entry: what a single transaction did to messages of one mailing.

    `statuses` runs parallel to `client_ids`, or has a single value for all of them. An entry with `receipts`,
    which runs parallel to them with its codes, is about these alone: its statuses are those that the messages have.
    """

    bucket: int
    seq: int
    mailing_id: int
    at: datetime
    client_ids: Sequence[int]
    statuses: Sequence[int]
    receipts: Sequence[int] = ()
    receipt_codes: Sequence[str] = ()
    forms: dict[frozenset[Status], tuple[bytes, ...]] = field(default_factory=dict)
    """Its encodings by the statuses selected: made once for all readers."""

    def changes(self, selected: frozenset[Status]) -> Sequence[tuple[int, int]]:
        """Return client and status of each change to one of the `selected` statuses, of any change when empty."""
        if len(self.statuses) == 1:
            status = self.statuses[0]
            return [(client, status) for client in self.client_ids] if self._fits(status, selected) else ()
        pairs = zip(self.client_ids, self.statuses, strict=True)
        return [pair for pair in pairs if self._fits(pair[1], selected)]

    def matching(self, query: ChangeQuery) -> int:
        """Return how many changes a query asks for; receipts are not held back by its statuses."""
        if query.mailing_id not in (0, self.mailing_id):
            return 0
        if self.receipts:
            return len(self.client_ids) if query.include_receipts else 0
        return self.count(query.statuses)

    def count(self, selected: frozenset[Status]) -> int:
        """Return how many changes there are to one of the `selected` statuses."""
        if len(self.statuses) == 1:
            return len(self.client_ids) if self._fits(self.statuses[0], selected) else 0
        return sum(self._fits(status, selected) for status in self.statuses) if selected else len(self.client_ids)

    @staticmethod
    def _fits(status: int, selected: frozenset[Status]) -> bool:
        return not selected or status in selected


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Which changes to read: of one mailing or (0) of all, to some statuses or (empty) to any; receipts as well."""

    mailing_id: int = 0
    statuses: frozenset[Status] = frozenset()
    include_receipts: bool = False

    def digest(self) -> bytes:
        """Return a digest that identifies this query in tokens."""
        receipts = ["receipts"] if self.include_receipts else []
        return query_digest("WatchMessages", self.mailing_id, sorted(self.statuses), *receipts)
