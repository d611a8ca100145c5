"""A caller that speaks HTTP/2 as no client does: one connection of raw frames."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

import h2.config
import h2.connection
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


def headers() -> list[tuple[str, str]]:
    """Return the headers of a call that asks the database."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/mailing.v1.MailingService/GetMailing"),
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
