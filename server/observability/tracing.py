"""Whether the service is traced, as its settings say. OpenTelemetry is loaded when it is, and only then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from dispatcher.tracing import Span, Tracer
from server.config import ConfigError, Settings


class CallTracer(Protocol):
    """Takes note of calls."""

    def call(self, method: str, metadata: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Enclose a call of `method`; the metadata may name the caller's span. An exception fails it."""
        ...


class ServiceTracer(Tracer, CallTracer, Protocol):
    """Takes note of calls and of the dispatcher's work."""


@contextmanager
def tracing(settings: Settings) -> Iterator[ServiceTracer | None]:
    """Lend a tracer, None when none is wanted, and export what it has at the end.

    Raise ConfigError where one is wanted and OpenTelemetry is not installed.
    """
    if not settings.tracing:
        yield None
        return
    try:
        from server.observability.opentelemetry import open_tracer
    except ImportError as error:
        raise ConfigError(["MAILING_TRACING needs OpenTelemetry: pip install 'mailing[otel]'."]) from error
    tracer = open_tracer()
    try:
        yield tracer
    finally:
        tracer.close()
