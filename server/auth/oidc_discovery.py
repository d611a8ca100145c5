"""Fetches the key set of an OIDC issuer over HTTP, from the configured address or by discovery.

An answer is bounded in time and size, comes as it is and not compressed, and neither redirects nor the
proxies of the environment are followed: keys come from the configured place and from nowhere else.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

TIMEOUT = 10.0
"""Maximum duration of one request, in seconds."""

MAX_BYTES = 1 << 20
"""Maximum size of an answer."""


class BadAnswer(Exception):
    """The issuer's answer cannot be used. `str()` of it says why."""


class Issuer:
    """The issuer by its exact name, and the address of its keys; without one discovery is used."""

    def __init__(self, name: str, keys_url: str | None = None, timeout: float = TIMEOUT) -> None:
        self.name = name
        self._keys_url = keys_url
        self._timeout = timeout

    async def fetch_keys(self) -> bytes:
        """Return the key set as it was received. Raise BadAnswer, TimeoutError, httpx.HTTPError."""
        async with httpx.AsyncClient(
            follow_redirects=False, timeout=self._timeout, trust_env=False, headers={"Accept-Encoding": "identity"}
        ) as client:
            url = self._keys_url or await self._discovered(client)
            status, body = await self._get(client, url)
        if status != httpx.codes.OK:
            raise BadAnswer(f"{url} answered with status {status}")
        return body

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        """Return the address in the issuer's configuration, or the usual one if there is no configuration."""
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
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                # A compressed answer may be small, and a thousand times larger when it is read.
                raise BadAnswer(f"{url} answered with a compressed body, which nobody asked for")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_BYTES:
                    raise BadAnswer(f"{url} answered with more than {MAX_BYTES:,} bytes")
            return answer.status_code, bytes(body)
