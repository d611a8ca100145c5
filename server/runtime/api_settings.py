"""How the API is served, as plain values: the settings that `server.main` hands to its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

from dispatcher.model.settings import DispatchSettings
from server.api import CallLimits, TransportSettings
from server.config import Settings
from server.config.display import settings_in_force
from server.domain.previews import FrequencyCap
from server.domain.server_info import Release, SettingInForce
from server.runtime.local_dispatcher import dispatch_settings
from server.watch import StreamSettings

_HOUR = 3600.0

_HEADROOM = 2
"""How many times larger than the limit a message may be to be refused with a reason; gRPC itself refuses others."""

_MARGIN = 60.0
"""Seconds after the last stream of a connection has been ended with a reason; then gRPC closes the connection."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Values for the parts of the API; each part gets its own."""

    transport: TransportSettings = field(default_factory=TransportSettings)
    limits: CallLimits = field(default_factory=CallLimits)
    streams: StreamSettings = field(default_factory=StreamSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    """The settings of dispatchers, unless they are changed at run time."""
    frequency_cap: FrequencyCap = field(default_factory=FrequencyCap)
    release: Release = field(default_factory=Release)

    @classmethod
    def of(cls, settings: Settings, connections: int = 10_000) -> ApiSettings:
        """Return the values that the service's settings give; callers may have so many connections."""
        return cls(
            transport=_transport(settings, connections),
            limits=_limits(settings),
            streams=StreamSettings(
                change_retention=settings.journal_retention_hours * _HOUR,
                event_retention=settings.log_retention_hours * _HOUR,
            ),
            dispatch=dispatch_settings(settings),
            frequency_cap=FrequencyCap(settings.frequency_cap, timedelta(hours=settings.frequency_period_hours)),
            release=Release(_version(), [SettingInForce(*one) for one in settings_in_force(settings)]),
        )


def _version() -> str:
    try:
        return version("mailing-server")
    except PackageNotFoundError:
        return "0"


def _transport(settings: Settings, connections: int) -> TransportSettings:
    return TransportSettings(
        max_message_bytes=_HEADROOM * _message_bytes(settings),
        streams_per_connection=settings.max_streams_per_connection,
        connections=connections,
        connections_per_host=min(settings.max_connections_per_host, max(1, connections // 2)),
        connection_age=settings.connection_age,
        connection_grace=_stream_age(settings) + _MARGIN,
    )


def _limits(settings: Settings) -> CallLimits:
    return CallLimits(
        streams=settings.max_streams_per_principal,
        calls=settings.max_calls_per_principal,
        per_second=settings.max_calls_per_second,
        longest=settings.max_call_seconds,
        stream_age=_stream_age(settings),
        message_bytes=_message_bytes(settings),
    )


def _message_bytes(settings: Settings) -> int:
    return int(settings.max_message_mib * 2**20)


def _stream_age(settings: Settings) -> float:
    return settings.connection_age + settings.connection_grace
