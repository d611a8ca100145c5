"""What the receipts listener answers: `/receipts/{endpoint}` and `/inbound/{endpoint}`, perhaps with a secret behind.

A receipt is answered with a 2xx when it is in the database, never before. A request that cannot be used gets its
status and is counted; it raises nothing, and neither its body nor its path is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import orjson

from server.config.types import ConfiguredEndpoint
from server.domain.errors import DatabaseUnavailable
from server.domain.inbound import ConsentChange, InboundRules, InboundSource, consent_changes_of
from server.domain.messages import split_message_id
from server.domain.receipts import Incoming, ReceiptSource, Report, reports_of
from server.domain.signatures import Signed
from server.observability.metrics.samples import Samples, Value
from server.receipts.writer import Overloaded, ReceiptWriter
from server.storage.opt_outs import OptOutStore

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""The most bytes of a body."""

_MOST_FIELDS = 1000

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is not served: its status, and how it is counted."""

    def __init__(self, status: int, result: str) -> None:
        super().__init__(result)
        self.status = status
        self.result = result


class Sources(NamedTuple):
    """Where requests come from, by endpoint."""

    receipts: Mapping[str, ReceiptSource]
    inbound: Mapping[str, InboundSource]

    def with_secrets_of(self, one: ConfiguredEndpoint) -> Sources:
        """Return these with another source for an endpoint, where it has any."""
        name = one.endpoint.name
        return Sources(
            {**self.receipts, name: one.receipts} if one.receipts else self.receipts,
            {**self.inbound, name: one.inbound} if one.inbound else self.inbound,
        )


class _Request(NamedTuple):
    """A request as far as it is known before its body."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class ReceiptsApp:
    """An ASGI application. `url` is the public address of the listener, without a slash at its end."""

    def __init__(self, sources: Sources, writer: ReceiptWriter, opt_outs: OptOutStore, url: str) -> None:
        self._sources = sources
        self._writer = writer
        self._opt_outs = opt_outs
        self._url = url
        self._counts: Counter[tuple[str, str]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = ""
        try:
            request = _request_of(scope)
            kind, endpoint, secret = self._place(request.path)
            status, result = await self._serve(kind, endpoint, secret, request, receive)
        except Refused as refusal:
            status, result = refusal.status, refusal.result
        except (DatabaseUnavailable, Overloaded):
            status, result = 503, "unavailable"
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request to the receipts listener failed")
            status, result = 500, "failed"
        self._counts[endpoint, result] += 1
        await _answer(send, status, result)

    def renew(self, one: ConfiguredEndpoint) -> None:
        """Verify what an endpoint's gateway sends by its secrets as they are now."""
        self._sources = self._sources.with_secrets_of(one)

    def samples(self) -> Samples:
        """Return how many requests came, by endpoint and result."""
        counts: dict[tuple[str, ...], Value] = {(*key,): count for key, count in self._counts.items()}
        return {"mailing_receipts_total": counts}

    def _place(self, path: str) -> tuple[str, str, str]:
        """Return the kind, the endpoint and the secret in a path. Raise Refused for an unknown one."""
        _, kind, endpoint, secret = (*path.split("/", 3), "", "", "")[:4]
        known = {"receipts": self._sources.receipts, "inbound": self._sources.inbound}.get(kind, {})
        if endpoint not in known:
            raise Refused(404, "unknown_endpoint")
        return kind, endpoint, unquote(secret)

    async def _serve(
        self, kind: str, endpoint: str, secret: str, request: _Request, receive: Receive
    ) -> tuple[int, str]:
        source = self._sources.receipts[endpoint] if kind == "receipts" else self._sources.inbound[endpoint]
        if request.method not in (("GET", "POST") if source.rules.parse == "query" else ("POST", "PUT")):
            raise Refused(405, "bad_request")
        body = await _body(request, receive)
        url = f"{self._url}{request.path}" + (f"?{request.query}" if request.query else "")
        if not source.verify(Signed(secret, url, request.headers, body)):
            raise Refused(401, "unverified")
        incoming = _incoming(source.rules.parse, request, body)
        if isinstance(source.rules, InboundRules):
            return await self._record_consent(endpoint, consent_changes_of(source.rules, incoming))
        return await self._record(endpoint, reports_of(endpoint, source.rules, incoming))

    async def _record(self, endpoint: str, reports: list[Report]) -> tuple[int, str]:
        if not reports:
            return 200, "ignored"
        found = await self._writer.record(reports)
        known = [report for report in reports if report in found]
        if opted := [split_message_id(found[report])[1] for report in known if report.opted_out]:
            await self._opt_outs.by_endpoint(opted, endpoint)
        return (200, "recorded") if known else (404, "unknown_message")

    async def _record_consent(self, endpoint: str, changes: list[ConsentChange]) -> tuple[int, str]:
        await self._opt_outs.by_message(changes, endpoint)
        return 200, "opted" if changes else "ignored"


def _request_of(scope: Scope) -> _Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return _Request(scope["method"], path.partition("?")[0], query, headers)


async def _body(request: _Request, receive: Receive) -> bytes:
    """Return the body. Raise Refused when it is larger than MAX_BODY, or its sender left."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY:
        raise Refused(413, "too_large")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "bad_request")
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            raise Refused(413, "too_large")
        if not message.get("more_body"):
            return body


def _incoming(parse: str, request: _Request, body: bytes) -> Incoming:
    """Return the request as its rules see it. Raise Refused for a body that cannot be read."""
    parameters = _fields(request.query)
    try:
        if parse == "json":
            document: object = orjson.loads(body)
        else:
            document = parameters | (_fields(body.decode("utf-8")) if parse == "form" else {})
    except ValueError:
        raise Refused(400, "bad_request") from None
    return Incoming(document, request.headers, parameters)


def _fields(text: str) -> dict[str, str]:
    """Return the first value of each field of a form or query. Raise Refused for one with too many."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refused(400, "bad_request") from None
    return dict(reversed(pairs))


async def _answer(send: Send, status: int, result: str) -> None:
    body = b"" if status == 200 else f"{result}\n".encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
