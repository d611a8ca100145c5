"""One HTTP request and its answer: JSON read and written, within time and size, as its caller takes it.

A stream is `{"result": …}` a line and, if it fails, `{"error": …}` at last.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import sha256
from typing import Any, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from mailing.v1.error_pb2 import ErrorReason
from server.console.guard import TooLarge
from server.console.http_api.bindings import Binding
from server.console.http_api.held import Hold
from server.console.http_api.requests import BadField, request_of
from server.console.http_api.statuses import Refusal, json_of, json_of_status, refusal

PATIENCE = 10.0
"""Seconds in which a body has to arrive."""

_QUIET = 1.0
"""Seconds after which a stream without a response yet begins its answer."""

_LARGE = 64 << 10
"""Bytes from which JSON is read and written in a thread, so that others are served meanwhile."""

_PASSED_ON = ("authorization", "traceparent", "tracestate")
_REQUEST_ID = "x-request-id"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What the API takes for an id; for anything else it makes one."""

T = TypeVar("T")


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, hold: Hold) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._hold = hold
        self._headers = Headers(scope=scope)
        given = self._headers.get(_REQUEST_ID, "")
        self._request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
        self._begun = False
        self._streams = False

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the call carries: the caller's credentials, request id and trace."""
        given = ((name, _printable(self._headers.get(name, ""))) for name in _PASSED_ON)
        return (*((name, value) for name, value in given if value), (_REQUEST_ID, self._request_id))

    @property
    def caller(self) -> str:
        """A name for the caller that tells nothing of the token."""
        token = self._headers.get("authorization", "")
        host: str = (self._scope.get("client") or ("",))[0]
        return sha256(token.encode()).hexdigest() if token else host

    async def request(self, binding: Binding, in_path: Mapping[str, str]) -> Message:
        """Return the request, read to its end. Raise Refusal."""
        self._streams = binding.method.server_streaming
        body = await self._body()
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        if binding.body and kind != "application/json":
            sentence = "The Content-Type should be application/json; with curl use --json."
            code = grpc.StatusCode.INVALID_ARGUMENT
            raise refusal(code, ErrorReason.ERROR_REASON_INVALID_FIELD, sentence, http_status=415)
        query = self._scope["query_string"].decode("latin-1")
        try:
            request = await _aside(len(body), lambda: request_of(binding, in_path, query, body))
        except BadField as bad:
            code, reason = grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_FIELD
            raise refusal(code, reason, bad.sentence, field=bad.field) from None
        self._hold.add(-len(body))
        return request

    async def _body(self) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = await self._receive()
                    part = message.get("body", b"")
                    body += part
                    self._hold.add(len(part))
                    if not message.get("more_body"):
                        return bytes(body)
        except TooLarge as error:
            sentence = f"The body is larger than {error.limit >> 20} MiB."
            code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE
            raise refusal(code, reason, sentence, http_status=413, headers={"connection": "close"}) from None
        except TimeoutError:
            sentence = f"The body did not arrive within {PATIENCE:.0f} seconds."
            code, reason = grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_BODY_TOO_SLOW
            raise refusal(code, reason, sentence, http_status=408, headers={"connection": "close"}) from None

    async def answer(self, call: grpc.aio.UnaryUnaryCall[Any, Any]) -> None:
        """Write the answer of a unary call. Raise Refusal."""
        try:
            response: Message = await call
        except grpc.aio.AioRpcError as error:
            raise Refusal.of_call(error) from None
        finally:
            call.cancel()
        body = await _aside(response.ByteSize(), lambda: json_of(response)) + b"\n"
        await self._begin(200, {"content-type": "application/json", "content-length": str(len(body))})
        await self._write(body, last=True)

    async def stream(self, call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
        """Write the responses of a stream as they come. Raise Refusal when there was none yet."""
        responses = aiter(call)
        try:
            async for response in self._prompt(responses):
                await self._write(await _aside(response.ByteSize(), lambda: _line("result", json_of(response))))  # noqa: B023
        except grpc.aio.AioRpcError as error:
            refused = Refusal.of_call(error)
            if not self._begun:
                raise refused from None
            await self._write(_line("error", json_of_status(refused.status)))
        finally:
            call.cancel()
        await self._write(b"", last=True)

    async def _prompt(self, responses: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield the responses; begin the answer with the first one, or when it does not come at once."""
        first = asyncio.ensure_future(anext(responses))
        try:
            await asyncio.wait((first,), timeout=_QUIET)
            if not first.done():
                await self._begin_lines()
            response = await first
        except StopAsyncIteration:
            await self._begin_lines()
            return
        finally:
            first.cancel()
        await self._begin_lines()
        yield response
        async for response in responses:
            yield response

    async def _begin_lines(self) -> None:
        if not self._begun:
            await self._begin(200, {"content-type": "application/x-ndjson", "x-accel-buffering": "no"})

    async def refuse(self, refused: Refusal) -> None:
        """Write the answer of a request that fails."""
        body = json_of_status(refused.status)
        body = _line("error", body) if self._streams else body + b"\n"
        kind = "application/x-ndjson" if self._streams else "application/json"
        length = {"content-type": kind, "content-length": str(len(body))}
        await self._begin(refused.http_status, {**length, **refused.headers})
        await self._write(body, last=True)

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._begun = True
        written = {**headers, _REQUEST_ID: self._request_id}
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in written.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _write(self, data: bytes, last: bool = False) -> None:
        """Write, and wait until the caller takes it; the listener ends connections that nobody reads."""
        self._hold.add(len(data))
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self._hold.add(-len(data))


async def _aside(size: int, work: Callable[[], T]) -> T:
    """Do what takes long for many bytes in a thread."""
    return await asyncio.to_thread(work) if size > _LARGE else work()


def _line(name: str, document: bytes) -> bytes:
    return b'{"%s":%s}\n' % (name.encode(), document)


def _printable(text: str) -> str:
    """Return a header's value if gRPC takes it as metadata, else nothing."""
    return text if text.isascii() and text.isprintable() else ""
