"""The httpx sender: for endpoints behind a proxy or on HTTP/2.

It keeps the promises of the fast sender (same classes, same bounds, same suite) and takes
proxies from the environment. It is far slower: httpcore looks at all its connections for
every request, so this one keeps few and lets the others wait in line before it.

What it can see less of: a connection that ends inside the head counts as ended before it,
and a proxy that refuses counts as CONNECT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_CONNECTIONS = 64
"""More than this make httpcore slower, not faster."""

_DISCONNECTED = ("disconnected", "closed connection", "ConnectionTerminated", "StreamReset")
_HEAD_TOO_LARGE = "Receive buffer too long"


class _Progress:
    """How far a request got; httpcore tells it."""

    __slots__ = ("answered", "connected", "sent", "status")

    def __init__(self) -> None:
        self.connected = False  # by this request: False means a reused connection
        self.sent = False
        self.answered = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.connected = True
        elif event.endswith("send_request_headers.started"):
            self.sent = True
        elif event.endswith("receive_response_headers.complete"):
            self.answered = True
