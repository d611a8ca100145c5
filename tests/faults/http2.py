"""A caller that speaks HTTP/2 as no client does: one connection of raw frames."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from mailing.v1.mailing_service_pb2 import GetMailingRequest

SOURCE = "127.0.0.2"
"""Another host than the one of well-behaved callers, as far as the service can tell."""

PIECE = 200
"""Frames that are sent at once."""


class Connection:
    """Says hello; then everything is up to the test."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10, source_address=(SOURCE, 0))
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self._http = h2.connection.H2Connection(config)
        self._http.initiate_connection()
        self._flush()

    def close(self) -> None:
        self._socket.close()

    def flood(self, times: int, act: Callable[[h2.connection.H2Connection], None]) -> bool:
        """Act so many times, as fast as the service takes it; return whether it put up with all of it."""
        try:
            for number in range(times):
                act(self._http)
                if number % PIECE == PIECE - 1:
                    self._flush()
            self._flush()
        except (OSError, h2.exceptions.ProtocolError):
            return False
        return True

    def raw(self, frames: Iterable[Frame]) -> bool:
        """Send frames that no library would; return whether the service took all of them."""
        try:
            for frame in frames:
                self._socket.sendall(frame.serialize())
        except OSError:
            return False
        return True

    def send_bodies(
        self, path: str, calls: int, size: int, seconds: float, announced: int | None = None, enough: int | None = None
    ) -> int:
        """Begin calls whose bodies of `size` bytes, as `announced`, miss the last one; return how many were ended.

        Send as much as the windows allow, in turn, and read what comes, until `enough` (absent: all) were ended, or
        for so many seconds.
        """
        left = dict.fromkeys((self._begin(path, announced or size) for _ in range(calls)), size - 1)
        ended, until = 0, time.monotonic() + seconds
        self._socket.settimeout(0.01)
        while time.monotonic() < until and ended < (enough or calls):
            for stream in left:
                self._send_some(stream, left)
            self._flush()
            for stream in self._ended_streams():
                ended += left.pop(stream, None) is not None
        return ended

    def call_without_reading(self, path: str, body: bytes, calls: int) -> None:
        """Make so many whole calls, and read none of the answers."""
        for _ in range(calls):
            stream = self._http.get_next_available_stream_id()
            self._http.send_headers(stream, headers(path))
            self._http.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        self._flush()

    def _begin(self, path: str, size: int) -> int:
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(stream, headers(path))
        self._http.send_data(stream, b"\0" + size.to_bytes(4, "big"))
        return stream

    def _send_some(self, stream: int, left: dict[int, int]) -> None:
        count = min(left[stream], self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
        if count > 0:
            self._http.send_data(stream, bytes(count))
            left[stream] -= count

    def _ended_streams(self) -> list[int]:
        """Return the streams that the service has ended since the last look."""
        try:
            events = self._http.receive_data(self._socket.recv(1 << 20))
        except TimeoutError:
            return []
        return [one.stream_id for one in events if isinstance(one, h2.events.StreamEnded | h2.events.StreamReset)]

    def is_open(self) -> bool:
        """Return whether the service has not closed the connection so far."""
        self._socket.settimeout(0.01)
        try:
            while self._socket.recv(1 << 16):
                pass
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def is_closed(self) -> bool:
        """Wait until the service has closed the connection; return False if it does not within ten seconds."""
        try:
            while self._socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())


ASKS_DATABASE = "/mailing.v1.MailingService/GetMailing"


def headers(path: str = ASKS_DATABASE) -> list[tuple[str, str]]:
    """Return the headers of a call, which asks the database unless another path is given."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def called_and_reset(http: h2.connection.H2Connection) -> None:
    """Make a whole call and take it back at once."""
    stream, body = http.get_next_available_stream_id(), GetMailingRequest(mailing_id=1).SerializeToString()
    http.send_headers(stream, headers())
    if http.outbound_flow_control_window > 100:
        http.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
    http.reset_stream(stream)


def called_with(http: h2.connection.H2Connection, *more: tuple[bytes, bytes]) -> None:
    """Begin a call with such metadata, without a request."""
    http.send_headers(http.get_next_available_stream_id(), [*headers(), *more], end_stream=True)


def pinged(http: h2.connection.H2Connection) -> None:
    """Pings."""
    http.ping(b"12345678")


def settings_changed(http: h2.connection.H2Connection) -> None:
    """Say once more what it said already."""
    http.update_settings({4: 65_535})


def endless_headers(pieces: int) -> Iterable[Frame]:
    """Headers of a call that never come to an end, a few bytes in each frame."""
    first = HeadersFrame(1)
    first.data = b"\x83\x86"
    yield first
    for _ in range(pieces):
        more = ContinuationFrame(1)
        more.data = b"\x00\x01a\x01b" * 20
        yield more
