"""Asks an OIDC issuer for its key set over HTTP: the address that is set, or what discovery says.

An answer is bounded in time and size, and redirects are not followed: keys come from where
the operator said and from nowhere else.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

TIMEOUT = 10.0
"""Seconds for one request, whatever the server does meanwhile."""

MAX_BYTES = 1 << 20
"""No answer may be longer."""


class BadAnswer(Exception):
    """The issuer did not answer as it should. `str()` of it says how."""


class Issuer:
    """The issuer by its exact name, and the address of its keys if that is known; else discovery tells."""

    def __init__(self, name: str, keys_url: str | None = None, timeout: float = TIMEOUT) -> None:
        self.name = name
        self._keys_url = keys_url
        self._timeout = timeout

    async def fetch_keys(self) -> bytes:
        """Return the key set as it came. Raise BadAnswer, TimeoutError, httpx.HTTPError."""
        async with httpx.AsyncClient(follow_redirects=False, timeout=self._timeout) as client:
            url = self._keys_url or await self._discovered(client)
            status, body = await self._get(client, url)
        if status != httpx.codes.OK:
            raise BadAnswer(f"{url} answered with status {status}")
        return body

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        """Return the address that the issuer's configuration has; the usual one if it has none."""
        base = self.name.rstrip("/") + "/.well-known/"
        status, body = await self._get(client, f"{base}openid-configuration")
        if status == httpx.codes.NOT_FOUND:
            return f"{base}jwks.json"
        try:
            found: Any = json.loads(body) if status == httpx.codes.OK else None
            issuer, url = str(found["issuer"]), str(found["jwks_uri"])
        except (ValueError, KeyError, TypeError):
            raise BadAnswer(f"{base}openid-configuration answered with status {status} and no configuration") from None
        if issuer != self.name:
            raise BadAnswer(f"{base}openid-configuration is the one of another issuer, {issuer[:200]!r}")
        if not url.startswith("https://") and self.name.startswith("https://"):
            raise BadAnswer(f"{base}openid-configuration names keys without https")
        return url

    async def _get(self, client: httpx.AsyncClient, url: str) -> tuple[int, bytes]:
        body = bytearray()
        async with asyncio.timeout(self._timeout), client.stream("GET", url) as answer:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise BadAnswer(f"{url} answered with more than {MAX_BYTES:,} bytes")
            return answer.status_code, bytes(body)
