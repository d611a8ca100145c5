"""How many messages may leave on a day, over all replicas together: permits that the database gave out.

The database counts the permits of each local day and gives out no more than the limit. A replica uses its permits
before their day ends and returns those that it does not need. So a day never sees more than its limit; it sees less by
what a killed replica held. Pure: time comes in as an argument; times are seconds of the monotonic clock.
"""

from __future__ import annotations

from dispatcher.model.quotas import DayLimit, QuotaGrant, QuotaRequest, QuotaReturn

CHUNK = 500
"""Permits that are asked for at once. A replica holds less than twice as many of one key."""

RECHECK = 10.0
"""Seconds until the database is asked again when a day is full: others may return permits, or the limit be raised."""

IDLE = 2.0
"""Seconds after which permits go back for which no message waits."""


class DayQuota:
    """Lets so many messages through as it holds permits. `ends` is when their day does."""

    def __init__(self, key: str, limit: DayLimit) -> None:
        self.key = key
        self.limit = limit
        self.held = 0
        self.ends = float("-inf")
        self._day = ""
        self._since = float("-inf")
        self._returning = 0
        self._exhausted = False
        self._ask_at = float("-inf")
        self._needed_at = float("-inf")

    def follow(self, limit: DayLimit) -> None:
        """Hold to another limit from now on; what was permitted under the last one goes back."""
        if limit != self.limit:
            self.limit = limit
            self.give_up()
            self._exhausted, self._ask_at = False, float("-inf")

    def ready(self, now: float) -> int:
        """Return how many messages may leave now."""
        return self.held if now < self.ends else 0

    def take(self, messages: int) -> None:
        """Use so many permits, which are there."""
        self.held -= messages

    def put_back(self, taken: float) -> None:
        """Take back the permit of a message that did not leave after all; `taken` is when it was used.

        One of the day before is worth nothing now.
        """
        if taken > self._since:
            self.held += 1

    def is_full(self) -> bool:
        """Return whether the day has no room, as far as is known."""
        return self._exhausted and not self.held

    def is_busy(self, now: float, demand: int) -> bool:
        """Return whether there is something to ask for or to return."""
        return demand > 0 or self.is_full() or self._returning > 0 or self.ready(now) > 0

    def request(self, now: float, demand: int) -> QuotaRequest | None:
        """Return what to ask the database for, so that `demand` messages may leave; None for nothing yet."""
        if now >= self.ends:
            self.held = self._returning = 0  # their day is over
        if now < self._ask_at:
            return None
        wanted = max(0, demand - self.held)
        if self.held >= CHUNK or not (wanted or self.is_full()):
            return None
        return QuotaRequest(self.key, self.limit, min(wanted, CHUNK))

    def add(self, asked: float, now: float, grant: QuotaGrant) -> None:
        """Take in the permits that the database was `asked` for; where none are left, it is asked again later.

        The day ends as long after the question as the answer says, or a little later: never early.
        """
        if grant.day != self._day:
            self._day, self._since = grant.day, now
            self.held = self._returning = 0
        self.ends = asked + grant.ends_in
        self.held += grant.granted
        self._needed_at = now
        self._exhausted = not grant.left
        self._ask_at = min(self.ends, now + RECHECK) if self._exhausted else asked

    def postpone(self, until: float) -> None:
        """Ask for nothing before `until`: what was asked last could not be answered."""
        self._ask_at = until

    def unneeded(self, now: float, demand: int) -> QuotaReturn | None:
        """Return the permits that go back, no longer counting them as held; None for none."""
        if now >= self.ends:
            return None
        if demand >= self.held:
            self._needed_at = now
        elif now - self._needed_at >= IDLE:
            self._returning += self.held - demand
            self.held = demand
        if not self._returning:
            return None
        back, self._returning = QuotaReturn(self.key, self._day, self._returning), 0
        return back

    def give_up(self) -> None:
        """Let everything that is held go back."""
        self._returning += self.held
        self.held = 0

    def next_at(self, now: float, demand: int) -> float:
        """Return when to look again."""
        if self.is_full() or demand > self.held:
            return max(self._ask_at, now)
        return now + IDLE
