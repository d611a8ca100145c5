"""Knows whether outcomes can be recorded: what cannot be recorded must not be sent.

Fed by the settler, asked before every claim. A database that is away speaks of every mailing;
outcomes that it refuses speak of their own mailing only, so that one never stops the others.
"""

from __future__ import annotations

from dispatcher.ports import Clock

PATIENCE = 1.0
"""Seconds for which recording may fail before nothing more is claimed."""


class Recording:
    """How settlements end. Times are monotonic seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused: dict[int, float] = {}
        self._away_since: float | None = None

    @property
    def failing_for(self) -> float:
        """For how many seconds outcomes of some mailing could not be recorded; 0 when all could."""
        since = [*self._refused.values(), *(() if self._away_since is None else (self._away_since,))]
        return self._clock.monotonic() - min(since) if since else 0.0

    @property
    def failing(self) -> bool:
        """Whether it failed for so long that something is not claimed any more."""
        return self.failing_for >= PATIENCE

    def allows(self, mailing_id: int) -> bool:
        """Return whether batches of a mailing may be claimed."""
        last = self._clock.monotonic() - PATIENCE
        away, refused = self._away_since, self._refused.get(mailing_id)
        return (away is None or away > last) and (refused is None or refused > last)

    def unavailable(self) -> None:
        """Note that the database did not take a settlement, for reasons that have nothing to do with it."""
        if self._away_since is None:
            self._away_since = self._clock.monotonic()

    def refused(self, mailing_id: int) -> None:
        """Note that the database refused outcomes of a mailing."""
        self._refused.setdefault(mailing_id, self._clock.monotonic())

    def recorded(self, mailing_id: int) -> None:
        """Note that the database took a settlement of a mailing."""
        self._away_since = None
        self._refused.pop(mailing_id, None)
