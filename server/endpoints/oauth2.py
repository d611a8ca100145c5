"""Access tokens of endpoints by OAuth 2.0 client credentials (RFC 6749, 4.4): fetched ahead of their end.

One task per endpoint fetches, so there is one fetch at a time. Until the first token there is, nothing is sent to the
endpoint and no attempt is used. Neither a token nor a secret is logged.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import orjson

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.requests import HttpRequest, RequestForm
from server.config.types import ConfiguredEndpoint, TokenGrant

log = logging.getLogger(__name__)

SHARE = 0.8
"""The share of a token's life after which the next one is fetched."""

SHORTEST, DEFAULT_LIFE = 1.0, 3600.0
"""Seconds between two fetches at least, and a token's life where the answer does not say it."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before a fetch that failed is repeated; they double."""


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


async def keep_tokens(configured: Sequence[ConfiguredEndpoint], *users: Callable[[Endpoint], None]) -> None:
    """Fetch tokens ahead of their ends and tell `users` of them, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for one in configured:
            if one.grant is not None:
                group.create_task(_keep(one, one.grant, users), name=f"token of {one.endpoint.name}")


async def _keep(one: ConfiguredEndpoint, grant: TokenGrant, users: Sequence[Callable[[Endpoint], None]]) -> None:
    wait = FIRST_WAIT
    while True:
        try:
            token = await fetch_token(grant, one.endpoint.total_timeout)
        except ValueError as error:
            log.error("endpoint %s: no token could be fetched: %s", one.endpoint.name, error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            continue
        for user in users:
            user(replace(one.endpoint, token=token.value, awaits_token=False))
        wait = FIRST_WAIT
        await asyncio.sleep(max(SHORTEST, token.life * SHARE))
