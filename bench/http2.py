"""Server streams for next to nothing: as much of HTTP/2 and gRPC as a thousand watchers need.

On a machine that does everything at once, what the watchers cost themselves would be measured as
a cost of the service. This client takes frames apart and hands on payloads; windows are as
large as they may be. It decodes no headers, so it does not know how a stream ended.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_LARGEST_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = (1 << 16) - 1
_FRAME = struct.Struct(">HBBBI")  # length in two pieces, type, flags, stream
_PREFIX = 5  # a gRPC message begins with a flag and its length


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def _text(value: str) -> bytes:
    assert len(value) < 127, "longer strings would need a longer length"
    return bytes([len(value)]) + value.encode()


def _headers(path: str) -> bytes:
    """Return the request's headers by HPACK, nothing of it indexed but what is in its static table."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + (b"\x04" + _text(path))
        + (b"\x01" + _text("localhost"))  # :authority
        + (b"\x0f\x10" + _text("application/grpc"))  # content-type
        + (b"\x00" + _text("te") + _text("trailers"))
    )


class Connection(asyncio.Protocol):
    """One connection; `open` begins streams on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._handlers: dict[int, Callable[[bytes], None]] = {}
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._partial: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, with windows that never close."""
        self._transport = stream = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        window = struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW)
        stream.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, window))

    def open(self, path: str, request: bytes, handle: Callable[[bytes], None]) -> asyncio.Future[None]:
        """Begin a stream whose messages go to `handle`; the future is done when it ends."""
        assert self._transport is not None
        stream = 2 * len(self._handlers) + 1
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handlers[stream], self._ended[stream] = handle, ended
        message = struct.pack(">BI", 0, len(request)) + request
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, _headers(path)) + _frame(_DATA, _END_STREAM, stream, message)
        )
        return ended

    def close(self) -> None:
        """End the connection and with it all streams."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End what has not ended."""
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        data = self._buffer + data if self._buffer else data
        begin = 0
        while begin + _FRAME.size <= len(data):
            high, low, kind, flags, stream = _FRAME.unpack_from(data, begin)
            end = begin + _FRAME.size + (high << 8 | low)
            if end > len(data):
                break
            self._take(kind, flags, stream, data[begin + _FRAME.size : end])
            begin = end
        self._buffer = data[begin:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._messages(stream, payload)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            self._transport.close()
        if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            ended = self._ended[stream]
            if not ended.done():
                ended.set_result(None)

    def _messages(self, stream: int, payload: bytes) -> None:
        data = self._partial.pop(stream, b"") + payload
        while len(data) >= _PREFIX and len(data) >= (end := _PREFIX + int.from_bytes(data[1:_PREFIX], "big")):
            self._handlers[stream](data[_PREFIX:end])
            data = data[end:]
        if data:
            self._partial[stream] = data


async def connect(address: str) -> Connection:
    """Return a connection to `host:port`."""
    host, _, port = address.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
    return connection
