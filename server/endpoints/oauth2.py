"""Access tokens of endpoints by OAuth 2.0 client credentials (RFC 6749, 4.4).

Neither a token nor a secret is logged. When they are fetched is decided in `server.endpoints.renewal`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import orjson

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.requests import HttpRequest, RequestForm
from server.config.types import TokenGrant

DEFAULT_LIFE = 3600.0
"""A token's life in seconds where the answer does not say it."""


class Token(NamedTuple):
    """A token and for how many seconds it is good."""

    value: str
    life: float


class _TokenForm(RequestForm):
    """The request for a token: always the same."""

    def __init__(self, grant: TokenGrant) -> None:
        parts = urlsplit(grant.url)
        pair = f"{quote(grant.client_id, safe='')}:{quote(grant.client_secret, safe='')}"
        fields = {"grant_type": "client_credentials"} | ({"scope": grant.scope} if grant.scope else {})
        self.method = "POST"
        self.content_type = "application/x-www-form-urlencoded"
        self.header_names = ("Authorization",)
        self.needs = self.requires = ()
        target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode("ascii")
        headers = (("Authorization", b"Basic " + base64.b64encode(pair.encode())),)
        self._request = HttpRequest(target, headers, urlencode(fields).encode("ascii"))

    def render(self, message_id: int, phone: str, text: str, values: Sequence[str] = ()) -> HttpRequest:
        """Return the request."""
        return self._request


async def fetch_token(grant: TokenGrant, timeout: float) -> Token:
    """Return a new token. Raise ValueError, which says why in a few words, when there is none."""
    sender = FastSender(Endpoint("token", grant.url, "", timeout, min(3.0, timeout), 1, request=_TokenForm(grant)))
    try:
        answer = await ask(sender, 0, "0", "", at_most_once=True)
    finally:
        await sender.close()
    assert answer is not None  # nothing forbids it to start
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}" if answer.status else answer.error.name.lower())
    try:
        found = orjson.loads(answer.body)
        token, life = found["access_token"], found.get("expires_in", DEFAULT_LIFE)
        life = float(life)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("an answer without a token") from None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ValueError("a token that fits into no header")
    return Token(token, life)
