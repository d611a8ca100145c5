"""Traces by OpenTelemetry, the one place that knows it; loaded only where they are wanted.

Where spans go, and how many of them, is said by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER. A span has ids, names, counts and
the types of exceptions; their messages may have phones and texts in them and stay here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_KINDS = {"send": SpanKind.CLIENT}


class OpenTelemetryTracer:
    """Implements `dispatcher.tracing.Tracer` and `server.api.interceptors.tracing.CallTracer` on a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("mailing")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, **facts: int | str) -> Iterator[TracedWork]:
        """Enclose a piece of work."""
        with self._begun(name, _KINDS.get(name, SpanKind.INTERNAL)) as work:
            work.note(**facts)
            yield work

    @contextmanager
    def call(self, method: str, metadata: Mapping[str, str]) -> Iterator[TracedWork]:
        """Enclose a call to the API."""
        with self._begun(method.lstrip("/"), SpanKind.SERVER, self._propagator.extract(metadata)) as work:
            yield work

    def headers(self) -> Mapping[str, str]:
        """Return `traceparent`, and `tracestate` if there is any."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def close(self) -> None:
        """Export what is left, and end."""
        self._provider.shutdown()

    @contextmanager
    def _begun(self, name: str, kind: SpanKind, parent: Context | None = None) -> Iterator[TracedWork]:
        with self._tracer.start_as_current_span(
            name, parent, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            work = TracedWork(span)
            try:
                yield work
            except BaseException as error:
                work.fail(type(error).__name__)
                raise


class TracedWork:
    """Implements `dispatcher.tracing.Span`."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def note(self, **facts: int | str) -> None:
        """Add facts, under the product's name."""
        self._span.set_attributes({f"mailing.{name}": fact for name, fact in facts.items()})

    def fail(self, why: str) -> None:
        """Note that the work did not succeed."""
        self._span.set_status(Status(StatusCode.ERROR, why))


def open_tracer() -> OpenTelemetryTracer:
    """Return a tracer that exports by OTLP over HTTP, in a thread of its own."""
    name = os.environ.get("OTEL_SERVICE_NAME", "mailing")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryTracer(provider)
