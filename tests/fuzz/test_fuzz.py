"""Whatever arrives, a call ends with an answer or with a refusal that the contract knows.

Every method of every service gets arbitrary, half-right and damaged requests, against a running
service with its dispatcher, on a real Postgres. The gate makes the same few every time;
`make fuzz` makes other ones, and as many as FUZZ_EXAMPLES says.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status.rpc_status import from_call
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailing.cli.processes import running
from mailing.v1.error_pb2 import ErrorReason
from server.api.server import SERVED
from tests.conftest import TEMPLATE, PostgresServer
from tests.e2e.conftest import EXAMPLES, PROGRAM, SERVING, TOKEN, environment
from tests.fuzz.known import known_values
from tests.fuzz.payloads import Messages, payloads

EXAMPLES_EACH = int(os.environ.get("FUZZ_EXAMPLES", "0"))
IN_THE_GATE = 40

ALLOWED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # too large for its method, or too many probes a second
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""INTERNAL and UNKNOWN would be defects; UNAVAILABLE, a statement that ran out of time or a service
that is gone; DEADLINE_EXCEEDED, one that hangs."""

OTHERS = (
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = [method for service in (*SERVED, *OTHERS) for method in service.methods]

bounded = settings(
    max_examples=EXAMPLES_EACH or IN_THE_GATE,
    derandomize=not EXAMPLES_EACH,
    database=None,
    deadline=timedelta(seconds=20),
    phases=(Phase.generate, Phase.shrink),
    print_blob=True,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "service.log"


@pytest.fixture(scope="module")
def channel(postgres_server: PostgresServer, log: Path) -> Iterator[grpc.Channel]:
    """Yield a channel to a running service that delivers to the example endpoint."""
    name = asyncio.run(postgres_server.create(TEMPLATE))
    program = [PROGRAM[0], str(EXAMPLES / "endpoint.py"), "--listen", "127.0.0.1:0", "--token", TOKEN]
    serve = [*PROGRAM, "serve", "--listen", "127.0.0.1:0"]
    listening = re.compile(r"listening on (\S+)")
    with running(program, listening, log.with_name("endpoint.log"), environment()) as endpoint:
        wanted = environment(
            MAILING_DSN=postgres_server.dsn(name),
            MAILING_ENDPOINT_URL=endpoint[1],
            MAILING_ENDPOINT_TOKEN=TOKEN,
            MAILING_LOG_FORMAT="json",
        )
        with running(serve, SERVING, log, wanted) as service, grpc.insecure_channel(service[1]) as channel:
            yield channel
    asyncio.run(postgres_server.drop(name))


def call(channel: Any, method: MethodDescriptor, requests: Sequence[bytes]) -> list[bytes]:
    """Return the first answers of a call; requests and answer stay bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming and not method.server_streaming:
        return [channel.stream_unary(path)(iter(requests), timeout=10)]
    if not method.server_streaming:
        return [channel.unary_unary(path)(requests[0], timeout=10)]
    if method.client_streaming:
        return list(channel.stream_stream(path)(iter(requests), timeout=10))
    stream = channel.unary_stream(path)(requests[0], timeout=10)
    answers = list(islice(stream, 1))
    stream.cancel()
    return answers


def decodes(method: MethodDescriptor, request: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(request)
    except DecodeError:
        return False
    return True


def has_a_reason(error: Any) -> None:
    """Fail when a refusal gives none of the contract's reasons."""
    status, info = from_call(error), ErrorInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details), error
    assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys(), info  # noqa: SIM118


def errors_logged(log: Path, after: int) -> list[str]:
    """Return the log's errors behind its first `after` bytes."""
    lines = log.read_bytes()[after:].decode(errors="replace").splitlines()
    return [line for line in lines if '"level": "error"' in line or "Traceback" in line]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.containing_service.name}.{method.name}")
def test_no_request_meets_a_defect(channel: grpc.Channel, log: Path, method: MethodDescriptor) -> None:
    """Fails, for one, when `check_text` lets NUL characters pass: Postgres takes none."""
    one = payloads(Messages(known_values(channel)).of(method.input_type))
    streams = st.lists(one, min_size=0 if method.client_streaming else 1, max_size=3 if method.client_streaming else 1)

    @bounded
    @given(streams)
    def holds(requests: list[bytes]) -> None:
        answers: list[bytes] = []
        try:
            answers = call(channel, method, requests)
        except grpc.RpcError as error:
            assert error.code() in ALLOWED, error  # noqa: PT017
            if method.full_name.startswith("mailing.v1."):
                has_a_reason(error)
            return
        assert all(decodes(method, request) for request in requests)
        for answer in answers:
            GetMessageClass(method.output_type).FromString(answer)

    before = log.stat().st_size
    holds()
    assert not errors_logged(log, before)
