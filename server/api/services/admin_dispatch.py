"""Serves the part of AdminService that shows and steers the dispatchers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from dispatcher.model.records import DispatchSettings, SettingOverrides
from mailing.v1 import admin_service_pb2 as pb
from mailing.v1 import dispatch_pb2
from server.api.encoding.wellknown import duration, populated, reject_output_only, span_of, timestamp
from server.domain.replicas import OVERRIDE_FIELDS, EndpointStatus, Replica, RuntimeSettings, check_overrides
from server.domain.validation import Violations, update_mask
from server.storage.replicas import ReplicaStore
from server.watch.admin_streams import AdminStreams

DEFAULT_INTERVAL = timedelta(seconds=1)
SHORTEST_INTERVAL = timedelta(milliseconds=100)
LONGEST_INTERVAL = timedelta(hours=1)


class DispatchCalls:
    """The methods about dispatchers."""

    def __init__(self, dispatch: ReplicaStore, streams: AdminStreams) -> None:
        self._dispatch = dispatch
        self._streams = streams

    async def get(self, request: pb.GetDispatchRequest) -> pb.GetDispatchResponse:
        """Return every replica and the settings."""
        state = await self._dispatch.read()
        return pb.GetDispatchResponse(
            replicas=map(replica_message, state.replicas), settings=self._settings(state.runtime_settings)
        )

    async def watch(self, request: pb.WatchDispatchRequest) -> AsyncGenerator[pb.WatchDispatchResponse, None]:
        """Stream the same."""
        violations = Violations()
        interval = _interval_of(request, violations)
        violations.check()
        async with aclosing(self._streams.dispatch(interval.total_seconds())) as states:
            async for state in states:
                yield pb.WatchDispatchResponse(
                    replicas=map(replica_message, state.replicas), settings=self._settings(state.runtime_settings)
                )

    async def update(self, request: pb.UpdateDispatchSettingsRequest) -> pb.UpdateDispatchSettingsResponse:
        """Change the settings named in the mask."""
        violations = Violations()
        if not request.HasField("settings"):
            violations.add("settings", "is required: the new values")
        paths = list(request.update_mask.paths)
        if not paths:
            reject_output_only(request.settings, ("paused",), "settings", violations)
        set_fields = [name for name in populated(request.settings) if name in OVERRIDE_FIELDS]
        fields = update_mask(paths, OVERRIDE_FIELDS, set_fields, violations)
        patch = overrides_of(request.settings, violations)
        check_overrides(patch, violations, fields)
        violations.check()
        return pb.UpdateDispatchSettingsResponse(settings=self._settings(await self._dispatch.update(patch, fields)))

    async def pause(self) -> pb.PauseDispatchResponse:
        """Stop all sending."""
        return pb.PauseDispatchResponse(settings=self._settings(await self._dispatch.pause()))

    async def resume(self) -> pb.ResumeDispatchResponse:
        """Let sending go on."""
        return pb.ResumeDispatchResponse(settings=self._settings(await self._dispatch.resume()))

    def _settings(self, runtime_settings: RuntimeSettings) -> dispatch_pb2.DispatchSettings:
        return settings_message(runtime_settings.in_force(self._dispatch.started_with), runtime_settings.paused)


def overrides_of(settings: dispatch_pb2.DispatchSettings, violations: Violations) -> SettingOverrides:
    """Return what a request chooses; what it leaves out is None. Reports what is no duration."""
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
    """Return a replica for a response."""
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
        endpoints=map(_endpoint_message, replica.endpoints),
        mailing_ids=replica.mailing_ids,
    )


def _endpoint_message(status: EndpointStatus) -> dispatch_pb2.EndpointStatus:
    return dispatch_pb2.EndpointStatus(
        name=status.name,
        breaker=status.breaker,  # type: ignore[arg-type]
        in_flight=status.in_flight,
        concurrency_limit=status.concurrency_limit,
        failure_ratio=status.failure_ratio,
        last_error=status.last_error,
    )


def _seconds(value: float | None) -> Duration | None:
    return None if value is None else duration(timedelta(seconds=value))


def _interval_of(request: pb.WatchDispatchRequest, violations: Violations) -> timedelta:
    if not request.HasField("min_interval"):
        return DEFAULT_INTERVAL
    interval = span_of(request.min_interval, "min_interval", violations)
    if interval is not None and not SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL:
        violations.add("min_interval", "must be from 100 ms to 1 hour")
    return interval or DEFAULT_INTERVAL
