"""Requests of endpoints that describe them: the compiled description and what every request carries.

Nothing here does any I/O. An endpoint without a description has the requests of
`dispatcher.delivery.protocol`, which are the fast ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dispatcher.delivery.protocol import parse_target
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.requests import RequestForm


class NotReady(Exception):
    """Requests cannot be made yet: there is no token."""


class Content(Protocol):
    """What a request says of one message; `values` are those that its endpoint's description needs besides."""

    @property
    def message_id(self) -> int: ...  # noqa: D102
    @property
    def phone(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def values(self) -> Sequence[str]: ...  # noqa: D102


class DescribedRequests:
    """Makes the requests of one endpoint: of one message each or, with a batch, of several.

    Raises ValueError for an endpoint without a description, or a bad URL.
    """

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

    def parts(self, *messages: Content) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
        """Return the target (path and query), all headers but Content-Length, and the body. Raise NotReady.

        A request for many messages has no key: one that repeats some of them is another request.
        """
        if self._awaits_token:
            raise NotReady
        if self.form.batch is not None:
            target, headers, body = self.form.render_batch(
                [(str(one.message_id), one.phone, one.text, *one.values) for one in messages]
            )
            return target, [*self._headers, *headers], body
        [one] = messages
        target, headers, body = self.form.render(one.message_id, one.phone, one.text, one.values)
        key = [("Idempotency-Key", b"%d" % one.message_id)] if self._keyed else []
        return target, [*self._headers, *headers, *key], body

    def http1(self, *messages: Content) -> bytes:
        """Return the bytes of the request by HTTP/1.1. Raise NotReady."""
        target, headers, body = self.parts(*messages)
        lines = b"".join([b"%b: %b\r\n" % (name.encode("ascii"), value) for name, value in headers])
        return b"%b %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
            self.method.encode("ascii"),
            target,
            lines,
            len(body),
            body,
        )
