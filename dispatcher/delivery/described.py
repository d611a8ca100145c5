"""Requests of endpoints that describe them: the compiled description and what every request carries.

Nothing here does any I/O. An endpoint without a description has the requests of
`dispatcher.delivery.protocol`, which are the fast ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.delivery.protocol import parse_target
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.requests import RequestForm


class NotReady(Exception):
    """Requests cannot be made yet: there is no token."""


class DescribedRequests:
    """Makes the requests of one endpoint. Raises ValueError for an endpoint without a description, or a bad URL."""

    def __init__(self, endpoint: Endpoint) -> None:
        if endpoint.request is None:
            raise ValueError(f"endpoint {endpoint.name!r}: its requests are not described")
        self.form: RequestForm = endpoint.request
        self.method = self.form.method
        self._awaits_token = endpoint.awaits_token
        own = {name.lower() for name in self.form.header_names}
        headers = [
            (name, value)
            for name, value in parse_target(endpoint).headers
            if name.lower() not in own and name != "Content-Type"
        ]
        if self.form.content_type and "content-type" not in own:
            headers.append(("Content-Type", self.form.content_type))
        self._headers = tuple((name, value.encode("latin-1")) for name, value in headers)
        self._keyed = "idempotency-key" not in own

    def parts(
        self, message_id: int, phone: str, text: str, values: Sequence[str]
    ) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
        """Return the target (path and query), all headers but Content-Length, and the body. Raise NotReady."""
        if self._awaits_token:
            raise NotReady
        target, headers, body = self.form.render(message_id, phone, text, values)
        key = [("Idempotency-Key", b"%d" % message_id)] if self._keyed else []
        return target, [*self._headers, *headers, *key], body

    def http1(self, message_id: int, phone: str, text: str, values: Sequence[str]) -> bytes:
        """Return the bytes of the request for one message by HTTP/1.1. Raise NotReady."""
        target, headers, body = self.parts(message_id, phone, text, values)
        lines = b"".join([b"%b: %b\r\n" % (name.encode("ascii"), value) for name, value in headers])
        return b"%b %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
            self.method.encode("ascii"),
            target,
            lines,
            len(body),
            body,
        )
