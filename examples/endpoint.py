"""A small HTTP endpoint that speaks the delivery protocol and remembers what it received.

    python examples/endpoint.py --listen 127.0.0.1:8080 --token secret

POST {any path}/{message id} takes one message and answers {"code": 0}; the bearer token,
the Idempotency-Key and the body have to be right. GET /received returns every message in
the order of arrival, with the time of each. Standard library only, a keep-alive connection per asyncio protocol.
Everything is kept in memory: this is a stand-in for demos and tests, not a gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MAX_HEAD = 16_384
MAX_BODY = 65_536


@dataclass(slots=True)
class Endpoint:
    """What the endpoint expects, how it answers, and what it received."""

    token: str
    delay: float = 0.0
    reject: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[HTTPStatus, Any]:
        """Return status and JSON body for one request."""
        if method == "GET" and path == "/received":
            return HTTPStatus.OK, {"received": self.received, "times": self.times}
        if method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, _error("only POST, and GET /received")
        if headers.get("authorization") != f"Bearer {self.token}":
            return HTTPStatus.UNAUTHORIZED, _error("the bearer token is wrong")
        return self._receive(path.rpartition("/")[2], headers.get("idempotency-key"), body)

    def _receive(self, path_id: str, key: str | None, body: bytes) -> tuple[HTTPStatus, Any]:
        try:
            message = json.loads(body)
            identity, phone, text = message["id"], message["phone"], message["text"]
        except (ValueError, KeyError, TypeError):
            return HTTPStatus.BAD_REQUEST, _error("the body is no JSON object with id, phone and text")
        if type(identity) is not int or type(phone) is not int or type(text) is not str or len(message) != 3:
            return HTTPStatus.BAD_REQUEST, _error("id and phone are integers, text is a string, there is nothing else")
        if not str(identity) == path_id == key:
            return HTTPStatus.BAD_REQUEST, _error("path, Idempotency-Key and body name different messages")
        if self.reject and str(phone).endswith(self.reject):
            return HTTPStatus.OK, {"code": 1, "message": "this phone is rejected"}
        self.received.append(message)
        self.times.append(time.time())
        return HTTPStatus.OK, {"code": 0, "message": "OK"}


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; answers its requests one after another."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while self._one_request():
            pass

    def _one_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return len(self._buffer) > MAX_HEAD and self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        try:
            request_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            method, path, _ = request_line.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", 0))
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if not 0 <= length <= MAX_BODY or "transfer-encoding" in headers:
            return self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length > MAX_BODY else HTTPStatus.LENGTH_REQUIRED
            )
        start = end + 4
        if len(self._buffer) < start + length:
            return False
        body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        status, answer = self._endpoint.answer(method, path, headers, body)
        self._send(status, answer, close=headers.get("connection", "").lower() == "close")
        return True

    def _refuse(self, status: HTTPStatus) -> bool:
        self._buffer.clear()
        self._send(status, _error(status.phrase), close=True)
        return False

    def _send(self, status: HTTPStatus, answer: Any, *, close: bool) -> None:
        body = json.dumps(answer, ensure_ascii=False).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: {'close' if close else 'keep-alive'}\r\n\r\n"
        ).encode()
        if self._endpoint.delay:
            asyncio.get_running_loop().call_later(self._endpoint.delay, self._write, head + body, close)
        else:
            self._write(head + body, close)

    def _write(self, data: bytes, close: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if close:
                self._transport.close()


def _error(message: str) -> dict[str, Any]:
    return {"code": 2, "message": message}


async def serve(endpoint: Endpoint, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; say where it listens on standard output."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: Connection(endpoint), host, port, backlog=4096)
    address = server.sockets[0].getsockname()
    print(f"listening on http://{address[0]}:{address[1]}/", flush=True)
    await stopped.wait()
    server.close()


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="port 0 takes a free one")
    parser.add_argument("--token", required=True, help="the bearer token that has to come with every message")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="how long every answer takes")
    parser.add_argument("--reject", default="", metavar="DIGITS", help="refuse phones that end in these digits")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    try:
        asyncio.run(serve(Endpoint(arguments.token, arguments.delay, arguments.reject), host, int(port)))
    except (OSError, ValueError) as error:
        print(f"endpoint: cannot listen on {arguments.listen}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
