"""Whether the service is traced, as its settings say. OpenTelemetry is loaded when it is, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dispatcher.tracing import Tracer
from server.config import ConfigError, Settings
from server.rpc.tracing import CallTracer


class ServiceTracer(Tracer, CallTracer, Protocol):
    """Takes note of calls and of the dispatcher's work."""


@contextmanager
def tracing(settings: Settings) -> Iterator[ServiceTracer | None]:
    """Lends a tracer, None when none is wanted, and exports what it has at the end.

    Raises ConfigError where one is wanted and OpenTelemetry is not installed.
    """
    if not settings.tracing:
        yield None
        return
    try:
        from server.otel import open_tracer
    except ImportError as error:
        raise ConfigError(["MAILING_TRACING needs OpenTelemetry: pip install 'mailing-server[otel]'."]) from error
    tracer = open_tracer()
    try:
        yield tracer
    finally:
        tracer.close()
