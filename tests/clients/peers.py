"""Peers that are no service of ours: a scripted one, a web server, and a proxy.

GetClient of id N fails with error reason N, or does what the table below says; GetMailing answers with
what only a later version has.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    CreateClientResponse,
    GetClientRequest,
    GetClientResponse,
)
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingResponse
from tests.support.project import ROOT

Context = grpc.aio.ServicerContext[Any, Any]

WAIT = 0.3
"""Seconds that a caller is asked to wait."""


def reasons() -> dict[int, tuple[grpc.StatusCode, str]]:
    """Return code and name of every error reason, by its number, as the contract's comments tell them."""
    text = (ROOT / "protos/mailing/v1/error.proto").read_text(encoding="utf-8")
    found = re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = (\d+);", text)
    codes = {int(number): (re.search(r"([A-Z_]+): ", comment), name) for comment, name, number in found}
    return {number: (grpc.StatusCode[code[1]], name) for number, (code, name) in codes.items() if code}


class ScriptedService:
    """Counts calls and answers as its methods say."""

    def __init__(self) -> None:
        self.test_messages = 0
        self._calls: Counter[int] = Counter()
        self._created: list[str] = []
        self._reasons = reasons()
        self._special: dict[int, Callable[[Context], Awaitable[Any]]] = {
            201: self._unavailable_twice,
            202: self._ask_to_wait,
            203: self._hang,
            204: lambda context: context.abort(grpc.StatusCode.UNKNOWN, "no details"),
            205: lambda context: context.abort(grpc.StatusCode.INTERNAL, "no details"),
            206: lambda context: context.abort(grpc.StatusCode.ABORTED, "no details"),
            207: lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "no details"),
            208: lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "no details"),
            209: self._many_violations,
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Lend the service's address."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(self),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)

    async def GetClient(self, data: bytes, context: Context) -> ProtoMessage:
        number = GetClientRequest.FromString(data).client_id
        self._calls[number] += 1
        if number in self._special:
            return GetClientResponse(client=Client(id=number, tag=await self._special[number](context)))
        code, reason = self._reasons[number]
        await refuse(context, code, ErrorInfo(reason=reason, domain="mailing.v1"))
        raise AssertionError

    async def CreateClient(self, data: bytes, context: Context) -> ProtoMessage:
        self._created.append(CreateClientRequest.FromString(data).request_id)
        if len(self._created) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        first, second = self._created
        return CreateClientResponse(client=Client(tag="same request" if first == second != "" else "another request"))

    async def SendTestMessage(self, _: bytes, context: Context) -> ProtoMessage:
        self.test_messages += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        raise AssertionError

    async def GetMailing(self, _: bytes, __: Context) -> ProtoMessage:
        mailing = Mailing(id=100, text="From tomorrow", state=99)  # type: ignore[arg-type]  # of a later version
        mailing.MergeFromString(bytes([0xC2, 0x3E, 3]) + b"new")  # field 1000
        return GetMailingResponse(mailing=mailing)

    async def _unavailable_twice(self, context: Context) -> str:
        if self._calls[201] < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return "third time"

    async def _ask_to_wait(self, context: Context) -> str:
        now = asyncio.get_running_loop().time()
        if self._calls[202] == 1:
            self._asked_at = now
            info = ErrorInfo(reason="LIMIT_REACHED", domain="mailing.v1")
            retry = RetryInfo(retry_delay=Duration(nanos=int(WAIT * 1e9)))
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, info, retry)
        return "waited" if now - self._asked_at >= WAIT else "came too soon"

    async def _hang(self, _: Context) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def _many_violations(self, context: Context) -> None:
        bad = BadRequest()
        for row in range(150):
            bad.field_violations.add(field=f"clients[{row}].timezone", description="no such zone")
        info = ErrorInfo(reason="INVALID_FIELD", domain="mailing.v1")
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, info, bad)


async def refuse(context: Context, code: grpc.StatusCode, *details: ProtoMessage) -> None:
    status = Status(code=code.value[0], message="refused by the script")
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = getattr(self._service, details.method.rpartition("/")[2], None)
        if method is None:
            return None
        return grpc.unary_unary_rpc_method_handler(method, None, lambda answer: answer.SerializeToString())


@asynccontextmanager
async def web_server() -> AsyncIterator[str]:
    """Lend the address of a web server that has a page for everybody, as proxies do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        page = b"<html>Bad gateway</html>"
        await reader.read(1024)
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page))
        writer.write(page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def page_by_http2() -> AsyncIterator[str]:
    """Lend the address of a proxy that speaks HTTP/2, and has lost the service behind it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    headers = [(":status", "502"), ("content-type", "text/html")]
                    connection.send_headers(event.stream_id, headers)
                    connection.send_data(event.stream_id, b"<html>Bad gateway</html>", end_stream=True)
            writer.write(connection.data_to_send())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
