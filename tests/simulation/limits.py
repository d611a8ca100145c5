"""What all replicas share of the one endpoint and of rates, in the model database."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from dispatcher.model.endpoints import DEFAULT_ENDPOINT, EndpointState, SlotRequest, Slots
from dispatcher.model.quotas import QuotaGrant, QuotaRequest, QuotaReturn
from dispatcher.model.states import BreakerState, Suspension
from dispatcher.rate_limiter import HORIZON
from tests.simulation.rows import EndpointRow, MailingRow
from tests.simulation.world import EPOCH, World


class Limits:
    """The row of the endpoint, and when the next moment of each rate is free."""

    def __init__(self, world: World) -> None:
        self.endpoint = EndpointRow()
        self._next_at: dict[str, datetime] = {}
        self.day = timedelta(seconds=25)
        """How long a day is: short, so that schedules have some, and no part of the days of clients."""
        self._used: Counter[tuple[str, int]] = Counter()
        self._most: dict[tuple[str, int], int] = {}
        self._world = world

    def breakers(self, now: datetime) -> dict[str, EndpointState]:
        row = self.endpoint
        if row.breaker is BreakerState.CLOSED and row.paused_until <= now:
            return {}
        probe_in, pause_in = ((moment - now).total_seconds() for moment in (row.probe_at, row.paused_until))
        if row.breaker is BreakerState.CLOSED:
            probe_in = 0.0
        return {DEFAULT_ENDPOINT: EndpointState(row.breaker, probe_in, row.suspension, max(0.0, pause_in))}

    def pause(self, seconds: float, now: datetime) -> None:
        row = self.endpoint
        self._world.tell("the endpoint is paused for", seconds)
        row.paused_at = row.paused_at if row.paused_until > now else self._true(now)
        row.paused_until = max(row.paused_until, now + timedelta(seconds=seconds))

    def open_breaker(
        self, probe_in: float, suspension: Suspension, now: datetime, *, others_deliver: bool = False
    ) -> bool:
        if self.endpoint.breaker is not BreakerState.CLOSED:
            return True
        if others_deliver:
            return False
        self._world.tell("the breaker opens")
        self._put(
            EndpointRow(BreakerState.OPEN, self._true(now), now + timedelta(seconds=probe_in), suspension=suspension)
        )
        return True

    def _true(self, now: datetime) -> datetime:
        """Return a moment of the database's clock as it is by a clock that nobody sets."""
        return now - self._world.clocks[-1][1]

    def _put(self, row: EndpointRow) -> None:
        """Replace the row but for its pause."""
        row.paused_at, row.paused_until = self.endpoint.paused_at, self.endpoint.paused_until
        self.endpoint = row

    def begin_probe(self, prober: str, longest: float, now: datetime) -> bool:
        row = self.endpoint
        if row.breaker is BreakerState.CLOSED or row.probe_at > now:
            return False
        self._world.tell(prober, "may probe")
        row.breaker, row.prober, row.probe_at = BreakerState.HALF_OPEN, prober, now + timedelta(seconds=longest)
        return True

    def close_breaker(self, prober: str, now: datetime) -> None:
        if (self.endpoint.breaker, self.endpoint.prober) == (BreakerState.HALF_OPEN, prober):
            self._world.tell("the breaker closes")
            self._put(EndpointRow(changed_at=self._true(now)))

    def fail_probe(self, prober: str, shortest: float, longest: float, now: datetime) -> float:
        row = self.endpoint
        if (row.breaker, row.prober) != (BreakerState.HALF_OPEN, prober):
            return shortest
        row.probes += 1
        wait = min(shortest * 2.0**row.probes, longest)
        row.breaker, row.prober, row.probe_at = BreakerState.OPEN, None, now + timedelta(seconds=wait)
        return wait

    def reserve(self, requests: Sequence[SlotRequest], now: datetime) -> tuple[float, dict[str, Slots]]:
        return now.timestamp(), {request.key: self._reserve(request, now) for request in requests}

    def _reserve(self, request: SlotRequest, now: datetime) -> Slots:
        longest = timedelta(seconds=HORIZON + 1 / request.rate)
        since = min(max(self._next_at.get(request.key, now), now), now + longest)
        ahead = (now - since + timedelta(seconds=HORIZON)).total_seconds()
        granted = max(0, min(request.wanted, math.floor(ahead / (1 / request.rate)) + 1))
        self._next_at[request.key] = since + timedelta(seconds=granted / request.rate)
        return Slots(since.timestamp(), 1 / request.rate, granted)

    def day_of(self, now: datetime) -> int:
        return (now - EPOCH) // self.day

    def permit(self, request: QuotaRequest, now: datetime) -> QuotaGrant:
        day = self.day_of(now)
        self._most[request.key, day] = request.limit.most
        granted = max(0, min(request.wanted, request.limit.most - self._used[request.key, day]))
        self._used[request.key, day] += granted
        left = max(0, request.limit.most - self._used[request.key, day])
        return QuotaGrant(str(day), granted, left, (EPOCH + (day + 1) * self.day - now).total_seconds())

    def is_full(self, mailing: MailingRow, now: datetime) -> bool:
        """Return whether the last day of a mailing that is over had no room for more."""
        ends_at = mailing.ends_at
        if ends_at is None or ends_at > now:
            return False
        keys = (f"mailing/{mailing.id}", f"endpoint/{DEFAULT_ENDPOINT}")
        return any(
            self._used[key, day] >= most and ends_at <= EPOCH + (day + 1) * self.day < ends_at + self.day * 26 / 24
            for (key, day), most in self._most.items()
            if key in keys
        )

    def give_back(self, returns: Sequence[QuotaReturn]) -> None:
        for key, day, permits in returns:
            self._used[key, int(day)] -= permits
