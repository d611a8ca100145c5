"""Dispatching as operators see and control it: replicas, endpoints, and settings for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from dispatcher.model.settings import DispatchSettings, SettingOverrides
from dispatcher.model.states import BreakerState, Suspension
from server.domain.validation import Violations

OVERRIDE_FIELDS = ("poll_min", "poll_max", "recheck_min", "recheck_max", "max_concurrency")
"""The settings that can be changed at run time."""

_POLL = (0.01, 60.0, "10 ms to 1 minute")
_RECHECK = (0.1, 3600.0, "100 ms to 1 hour")
_RANGES = {"poll_min": _POLL, "poll_max": _POLL, "recheck_min": _RECHECK, "recheck_max": _RECHECK}

MOST_CONCURRENCY = 10_000


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """The overrides of settings at run time, and whether all sending is stopped."""

    overrides: SettingOverrides
    paused: bool

    def in_force(self, started_with: DispatchSettings) -> DispatchSettings:
        """Return the settings in force in a replica that was started with these."""
        return self.overrides.of(started_with)


@dataclass(frozen=True, slots=True)
class EndpointSuspension:
    """Why nothing is sent to an endpoint since when and until when, and in a sentence what to do."""

    reason: Suspension
    since: datetime
    until: datetime
    detail: str


_DETAILS = {
    Suspension.CREDENTIALS: "It refuses our credentials ({}): correct its token.",
    Suspension.NOT_FOUND: "Its URL or method is wrong ({}): correct its URL.",
    Suspension.REFUSES_ALL: "It refuses nearly every message alike ({}): ask its operator, or check the audience.",
    Suspension.THROTTLED: "It asks for patience; a max_rate would keep within what it takes.",
}


def suspension_of(reason: Suspension, since: datetime, until: datetime, last_error: str) -> EndpointSuspension:
    """Return the suspension of an endpoint with this last error."""
    return EndpointSuspension(reason, since, until, _DETAILS[reason].format(last_error))


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """The breaker of an endpoint, its last error, '' without one, and why it is suspended, if it is."""

    breaker: BreakerState = BreakerState.CLOSED
    last_error: str = ""
    suspension: EndpointSuspension | None = None


def health_of(breaker: BreakerState, last_error: str, suspension: EndpointSuspension | None) -> EndpointHealth:
    """Return the state of an endpoint: while it is suspended, its breaker counts as open."""
    if suspension is not None and breaker is BreakerState.CLOSED:
        breaker = BreakerState.OPEN
    return EndpointHealth(breaker, last_error, suspension)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """The status of an endpoint in one replica. `breaker` is open there also when others reach the endpoint."""

    name: str
    breaker: int
    in_flight: int
    concurrency_limit: int
    failure_ratio: float
    last_error: str
    suspension: EndpointSuspension | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One live dispatcher, as of its last heartbeat. Times are seconds."""

    id: UUID
    host: str
    process_id: int
    started_at: datetime
    in_flight: int
    concurrency_limit: int
    poll_interval: float
    poll_reason: str
    backlog: int
    rate: float
    latency_p50: float | None
    latency_p99: float | None
    endpoints: Sequence[EndpointStatus]
    mailing_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class DispatchState:
    """Every live replica, the oldest first, and the runtime settings."""

    replicas: Sequence[Replica]
    runtime_settings: RuntimeSettings


def check_overrides(
    overrides: SettingOverrides, violations: Violations, fields: Collection[str] = OVERRIDE_FIELDS
) -> None:
    """Report each of `fields` that is set and out of its range."""
    for name, (lowest, highest, words) in _RANGES.items():
        value = getattr(overrides, name)
        if name in fields and value is not None and not lowest <= value <= highest:
            violations.add(f"settings.{name}", f"must be {words}")
    most = overrides.max_concurrency
    if "max_concurrency" in fields and most is not None and not 1 <= most <= MOST_CONCURRENCY:
        violations.add("settings.max_concurrency", "must be 1 to 10,000")


def amended_overrides(
    before: SettingOverrides, patch: SettingOverrides, fields: Collection[str], started_with: DispatchSettings
) -> SettingOverrides:
    """Return `before` with `fields` taken from `patch`.

    Raise InvalidFields where a minimum would exceed its maximum, whether they are overridden or
    those of the environment.
    """
    after = replace(before, **{name: getattr(patch, name) for name in fields})
    violations = Violations()
    for low, high in (("poll_min", "poll_max"), ("recheck_min", "recheck_max")):
        shortest, longest = (_in_force(after, name, started_with) for name in (low, high))
        if shortest > longest and {low, high} & set(fields):
            path, other = (low, high) if low in fields else (high, low)
            relation = "more" if path == low else "less"
            value = longest if path == low else shortest
            violations.add(f"settings.{path}", f"must not be {relation} than {other}, which is {value:g} s")
    violations.check()
    return after


def _in_force(overrides: SettingOverrides, name: str, started_with: DispatchSettings) -> float:
    chosen: float | None = getattr(overrides, name)
    return float(getattr(started_with, name)) if chosen is None else chosen


def replica_of(
    replica_id: UUID,
    process: tuple[str, int],
    started_at: datetime,
    status: Mapping[str, Any],
    breakers: Mapping[str, int],
    suspensions: Mapping[str, EndpointSuspension],
) -> Replica:
    """Return a replica from its heartbeat; what a replica of another version left out is 0."""
    return Replica(
        id=replica_id,
        host=process[0],
        process_id=process[1],
        started_at=started_at,
        in_flight=status.get("in_flight", 0),
        concurrency_limit=status.get("concurrency_limit", 0),
        poll_interval=status.get("poll_interval", 0.0),
        poll_reason=status.get("poll_reason", ""),
        backlog=status.get("backlog", 0),
        rate=status.get("rate", 0.0),
        latency_p50=status.get("latency_p50"),
        latency_p99=status.get("latency_p99"),
        endpoints=[_endpoint_of(one, breakers, suspensions) for one in status.get("endpoints", ())],
        mailing_ids=status.get("mailing_ids", ()),
    )


def _endpoint_of(
    status: Mapping[str, Any], breakers: Mapping[str, int], suspensions: Mapping[str, EndpointSuspension]
) -> EndpointStatus:
    name = status["name"]
    shared = breakers.get(name, BreakerState.CLOSED)
    breaker = status.get("breaker", shared) if shared == BreakerState.CLOSED else shared
    health = health_of(BreakerState(breaker), status.get("last_error", ""), suspensions.get(name))
    return EndpointStatus(
        name=name,
        breaker=health.breaker,
        in_flight=status.get("in_flight", 0),
        concurrency_limit=status.get("concurrency_limit", 0),
        failure_ratio=status.get("failure_ratio", 0.0),
        last_error=health.last_error,
        suspension=health.suspension,
    )
