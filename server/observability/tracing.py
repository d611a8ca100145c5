"""Tracing as the settings configure it. OpenTelemetry is imported only where tracing is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from dispatcher.tracing import Span, Tracer
from server.config import ConfigError, Settings


class CallTracer(Protocol):
    """Records calls as spans."""

    def call(self, method: str, metadata: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Record a call of `method`; the metadata may name the caller's span. An exception fails the span."""
        ...


class ServiceTracer(Tracer, CallTracer, Protocol):
    """Records calls and the dispatcher's work as spans."""


@contextmanager
def tracing(settings: Settings) -> Iterator[ServiceTracer | None]:
    """Lend a tracer, None where tracing is off, and export the remaining spans at the end.

    Raise ConfigError where tracing is on and OpenTelemetry is not installed.
    """
    if not settings.tracing:
        yield None
        return
    try:
        from server.observability.opentelemetry import open_tracer
    except ImportError as error:
        raise ConfigError(["MAILING_TRACING needs OpenTelemetry: pip install 'mailing-server[otel]'."]) from error
    tracer = open_tracer()
    try:
        yield tracer
    finally:
        tracer.close()
