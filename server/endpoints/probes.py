"""Requests outside of the ledger: probes of an endpoint, and test messages.

Each goes over a sender of its own, so that it tells how the name resolves, the connection
opens and TLS agrees now, and so that it waits for no dispatcher's connections. Windows,
opt-outs, rates and breakers are not looked at, the endpoint's timeouts hold, nothing is sent
twice, and nothing is recorded.

Its message id is random and below 2^32, which is mailing 0's range: the ledger never uses it,
and an endpoint that knows ids again meets a new one every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import randbelow
from typing import NamedTuple

from dispatcher.delivery.protocol import judge
from dispatcher.model.records import DEFAULT_ENDPOINT, Answer, Endpoint
from dispatcher.model.states import ErrorClass
from server.config.types import ConfiguredEndpoint
from server.domain.errors import EndpointUnknown
from server.domain.messages import Attempt, message_id
from server.endpoints.senders import make_sender

PROBE_PHONE = "0"
"""No number of the world begins so: an endpoint has nobody to deliver a probe to."""

PROBE_TEXT = "A probe of the endpoint, not to be delivered."


class ProbeResult(NamedTuple):
    """A request that was made: the id it had, and what became of it, also when it was delivered."""

    message_id: int
    attempt: Attempt


class EndpointProbes:
    """Makes requests to the configured endpoints, one at a time."""

    def __init__(self, configured: Sequence[ConfiguredEndpoint] = ()) -> None:
        self._configured = {one.endpoint.name: one for one in configured}

    @property
    def endpoints(self) -> list[Endpoint]:
        """All endpoints, in the order of their names."""
        return [self._configured[name].endpoint for name in sorted(self._configured)]

    async def probe(self, endpoint: str) -> ProbeResult:
        """Send what reaches nobody; see `send`."""
        return await self.send(endpoint, PROBE_PHONE, PROBE_TEXT)

    async def send(self, endpoint: str, phone: str, text: str) -> ProbeResult:
        """Send a text to a phone over an endpoint, '' being the default one. Raise EndpointUnknown."""
        name = endpoint or DEFAULT_ENDPOINT
        configured = self._configured.get(name)
        if configured is None:
            raise EndpointUnknown(name, self._configured)
        identity, began_at = message_id(0, 1 + randbelow(2**32 - 1)), datetime.now(UTC)
        answer = await _exchange(configured, identity, phone, text)
        verdict = judge(answer, configured.endpoint.success)
        attempt = Attempt(
            number=1,
            at=began_at,
            endpoint=name,
            endpoint_status=answer.status,
            endpoint_code=verdict.endpoint_code,
            error_class=verdict.error_class,
            duration=timedelta(seconds=answer.duration),
            response_excerpt=verdict.excerpt,
        )
        return ProbeResult(identity, attempt)


async def _exchange(configured: ConfiguredEndpoint, identity: int, phone: str, text: str) -> Answer:
    """Return what one request on a new connection came to."""
    alone = configured._replace(endpoint=replace(configured.endpoint, max_concurrency=1))
    try:
        sender = make_sender(alone)
    except ValueError as error:  # the CA file was good at the start and is not any more
        return Answer(0, str(error).encode(), None, ErrorClass.TLS, False, 0.0)
    try:
        answer: Answer | None = await sender.send(identity, phone, text, at_most_once=True)
        assert answer is not None  # nobody may forbid it to start
        return answer
    finally:
        await sender.close()
