"""Traces: what a message goes through is told, the endpoint is told of it, and nothing when they are off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import grpc
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, GetMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.config import ConfigError, Settings
from server.endpoints.senders import configured_endpoints, make_endpoints
from server.observability.opentelemetry import OpenTelemetryTracer
from server.observability.tracing import tracing
from server.runtime.local_dispatcher import LocalDispatcher
from tests.support.api import make_api
from tests.support.eventually import eventually

PHONES = ("79265551234", "79265551235")
TEXT = "canary-of-a-text"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Endpoint:
    """Accepts the first message, refuses the others, remembers the headers."""

    url: str = ""
    parents: list[str | None] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        self.parents.append(request.headers.get("traceparent"))
        return web.json_response({"code": 0}, status=200 if len(self.parents) == 1 else 400)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint, app = Endpoint(), web.Application()
    app.router.add_post("/{id}", endpoint.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield endpoint
    await runner.cleanup()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> OpenTelemetryTracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetryTracer(provider)


async def delivered(
    pool: asyncpg.Pool, endpoint: Endpoint, tracer: OpenTelemetryTracer | None, transport: str = "fast"
) -> None:
    """Send a mailing to two clients, over the API and a dispatcher; the call that creates it belongs to a trace."""
    settings = Settings(endpoint_url=endpoint.url, endpoint_transport=transport)  # type: ignore[arg-type]
    dispatch = LocalDispatcher(pool, make_endpoints(configured_endpoints(settings), tracer), settings, tracer)
    server = await make_api(pool, hint=dispatch.hint, tracer=tracer)
    address = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
    await server.start()
    running = asyncio.create_task(dispatch.run())
    async with grpc.aio.insecure_channel(address) as channel:
        for phone in PHONES:
            await ClientServiceStub(channel).CreateClient(
                CreateClientRequest(client=Client(phone=phone, timezone="UTC"))
            )
        with pytest.raises(grpc.aio.AioRpcError):
            await ClientServiceStub(channel).CreateClient(CreateClientRequest(client=Client(phone=PHONES[0])))
        wanted = Mailing(text=f"{TEXT} {{phone}}", retry=RetryPolicy(max_attempts=1))
        mailings = MailingServiceStub(channel)
        made = await mailings.CreateMailing(
            CreateMailingRequest(mailing=wanted), metadata=(("traceparent", PARENT), ("x-bin", b"\xff"))
        )

        async def settled() -> bool:
            progress = (await mailings.GetMailing(GetMailingRequest(mailing_id=made.mailing.id))).mailing.progress
            return progress.delivered + progress.failed == 2

        await eventually(settled)
    await dispatch.stop(5)
    await running
    await server.stop(0)


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("transport", ["fast", "httpx"])
async def test_a_message_is_told_from_its_call_to_its_settlement(
    pool: asyncpg.Pool, endpoint: Endpoint, tracer: OpenTelemetryTracer, exporter: InMemorySpanExporter, transport: str
) -> None:
    """Fails when exceptions are recorded as they are, for one: the refused call tells its client's fields."""
    await delivered(pool, endpoint, tracer, transport)
    spans = {name: [span for span in exporter.get_finished_spans() if span.name == name] for name in NAMES}
    assert all(spans.values()), spans
    (call,) = spans["mailing.v1.MailingService/CreateMailing"]
    assert f"{call.context.trace_id:032x}" == TRACE
    refused = spans["mailing.v1.ClientService/CreateClient"][-1]
    assert (refused.status.status_code, refused.status.description) == (StatusCode.ERROR, "InvalidFields")
    sends = {f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}" for span in spans["send"]}
    assert sends == {str(parent).rpartition("-")[0] for parent in endpoint.parents}
    assert sorted(str(facts(span)["mailing.status"]) for span in spans["send"]) == ["200", "400"]
    assert sum(int(str(facts(span)["mailing.messages"])) for span in spans["settle"]) == 2
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert not [canary for canary in (*PHONES, TEXT) if canary in told]


NAMES = (
    "mailing.v1.MailingService/CreateMailing",
    "mailing.v1.ClientService/CreateClient",
    "expand",
    "claim",
    "send",
    "settle",
)


async def test_the_endpoint_is_told_of_no_trace_when_there_is_none(pool: asyncpg.Pool, endpoint: Endpoint) -> None:
    await delivered(pool, endpoint, None)
    assert endpoint.parents == [None, None]


def test_nothing_of_opentelemetry_is_loaded_when_traces_are_off() -> None:
    program = (
        "import server.main, sys; from server.observability.tracing import tracing\n"
        "from server.config import Settings\n"
        "with tracing(Settings()) as tracer: print(tracer, [one for one in sys.modules if 'opentelemetry' in one])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "None []\n"


def test_without_opentelemetry_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "server.observability.opentelemetry", None)
    with pytest.raises(ConfigError, match=r"mailing-server\[otel\]"), tracing(Settings(tracing=True)):
        pass


def test_a_service_with_traces_opens_and_closes_its_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with tracing(Settings(tracing=True)) as tracer:
        assert tracer is not None
        assert not tracer.headers()
