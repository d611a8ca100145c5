"""The requests to a subscriber: signed as Standard Webhooks say, made by the sender of the engine.

A redirect is not followed, certificates are verified, and an answer is read no further than its limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.requests import HttpRequest, RequestForm
from server.domain.signatures import webhook_key, webhook_signature
from server.domain.webhooks import WebhookConfig

MAX_ANSWER = 16_384
"""The most bytes of an answer's body."""


class _SignedForm(RequestForm):
    """A request whose body is given as it is; the id and the secrets make its headers."""

    def __init__(self, url: str, secrets: Sequence[str], clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self.method = "POST"
        self.content_type = "application/json"
        self.header_names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        self.needs = self.requires = ()
        self._path = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode("ascii")
        self._clock = clock
        self.sign_with(secrets)

    def sign_with(self, secrets: Sequence[str]) -> None:
        """Sign with these from the next request on."""
        self._keys = [webhook_key(secret) for secret in secrets]

    def render(self, message_id: int, phone: str, text: str, values: Sequence[str] = ()) -> HttpRequest:
        """Return the request with `text` as its body; the only value is its id."""
        [identity], body, moment = values, text.encode(), int(self._clock())
        signatures = " ".join(webhook_signature(key, identity, moment, body) for key in self._keys)
        values_of_headers = (identity, str(moment), signatures)
        headers = tuple(zip(self.header_names, (one.encode("ascii") for one in values_of_headers), strict=True))
        return HttpRequest(self._path, headers, body)


class WebhookSender:
    """Makes requests to one subscriber. To be used in one loop."""

    def __init__(self, config: WebhookConfig, clock: Callable[[], float] = time.time) -> None:
        form = self._form = _SignedForm(config.url, config.secrets, clock)
        self._sender = FastSender(
            Endpoint(
                name=config.name,
                url=config.url,
                token="",
                total_timeout=config.timeout,
                connect_timeout=min(5.0, config.timeout),
                max_concurrency=2,
                max_response_bytes=MAX_ANSWER,
                request=form,
            )
        )

    def renew(self, config: WebhookConfig) -> None:
        """Use the secrets of this configuration from the next request on."""
        self._form.sign_with(config.secrets)

    async def send(self, identity: str, body: bytes) -> Answer:
        """POST one body and return what it came to."""
        answer = await ask(self._sender, 0, "0", body.decode(), at_most_once=True, values=(identity,))
        assert answer is not None  # nothing forbids it to start
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()
