"""Replicas, endpoints and the settings of dispatchers ↔ their messages."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from dispatcher.model.endpoints import Endpoint
from dispatcher.model.settings import DispatchSettings, SettingOverrides
from mailing.v1 import dispatch_pb2
from server.api.encoding.wellknown import duration, span_of, timestamp
from server.domain.replicas import EndpointHealth, EndpointStatus, EndpointSuspension, Replica
from server.domain.validation import Violations


def overrides_of(settings: dispatch_pb2.DispatchSettings, violations: Violations) -> SettingOverrides:
    """Return the settings of a request, None for those that it leaves out; report invalid durations."""
    spans = {
        name: span_of(getattr(settings, name), f"settings.{name}", violations)
        for name in ("poll_min", "poll_max", "recheck_min", "recheck_max")
        if settings.HasField(name)
    }
    seconds = {name: span.total_seconds() for name, span in spans.items() if span is not None}
    return SettingOverrides(**seconds, max_concurrency=settings.max_concurrency or None)  # type: ignore[arg-type]


def settings_message(settings: DispatchSettings, paused: bool) -> dispatch_pb2.DispatchSettings:
    """Return the settings in force."""
    return dispatch_pb2.DispatchSettings(
        poll_min=duration(timedelta(seconds=settings.poll_min)),
        poll_max=duration(timedelta(seconds=settings.poll_max)),
        recheck_min=duration(timedelta(seconds=settings.recheck_min)),
        recheck_max=duration(timedelta(seconds=settings.recheck_max)),
        max_concurrency=settings.max_concurrency,
        paused=paused,
    )


def replica_message(replica: Replica) -> dispatch_pb2.Replica:
    """Return a replica as its message."""
    return dispatch_pb2.Replica(
        id=str(replica.id),
        host=replica.host,
        process_id=replica.process_id,
        start_time=timestamp(replica.started_at),
        in_flight=replica.in_flight,
        concurrency_limit=replica.concurrency_limit,
        poll_interval=_seconds(replica.poll_interval),
        poll_reason=replica.poll_reason,
        backlog=replica.backlog,
        rate_per_second=replica.rate,
        latency_p50=_seconds(replica.latency_p50),
        latency_p99=_seconds(replica.latency_p99),
        endpoints=map(_status_message, replica.endpoints),
        mailing_ids=replica.mailing_ids,
    )


def _status_message(status: EndpointStatus) -> dispatch_pb2.EndpointStatus:
    return dispatch_pb2.EndpointStatus(
        name=status.name,
        breaker=status.breaker,  # type: ignore[arg-type]
        in_flight=status.in_flight,
        concurrency_limit=status.concurrency_limit,
        failure_ratio=status.failure_ratio,
        last_error=status.last_error,
        suspension=_suspension_message(status.suspension),
    )


def _suspension_message(suspension: EndpointSuspension | None) -> dispatch_pb2.Suspension | None:
    if suspension is None:
        return None
    return dispatch_pb2.Suspension(
        reason=dispatch_pb2.Suspension.Reason.ValueType(suspension.reason),
        since=timestamp(suspension.since),
        until=timestamp(suspension.until),
        detail=suspension.detail,
    )


def endpoint_message(
    endpoint: Endpoint, health: EndpointHealth, unresolved: str, sent_today: int
) -> dispatch_pb2.Endpoint:
    """Return an endpoint as its message. That its host does not resolve now says more than an older error."""
    return dispatch_pb2.Endpoint(
        name=endpoint.name,
        url=endpoint.shown_url,
        max_rate=endpoint.max_rate,
        max_per_day=endpoint.day_limit.most if endpoint.day_limit else 0,
        max_per_day_timezone=endpoint.day_limit.timezone if endpoint.day_limit else "",
        sent_today=sent_today,
        max_concurrency=endpoint.max_concurrency,
        status=dispatch_pb2.EndpointStatus(
            name=endpoint.name,
            breaker=dispatch_pb2.EndpointStatus.Breaker.ValueType(health.breaker),
            last_error=unresolved or health.last_error,
            suspension=_suspension_message(health.suspension),
        ),
    )


def _seconds(value: float | None) -> Duration | None:
    return None if value is None else duration(timedelta(seconds=value))
