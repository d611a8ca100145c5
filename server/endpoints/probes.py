"""Requests without a message: probes of an endpoint, and test messages.

Each uses a sender of its own, so that it tests name resolution, connection and TLS as they are now,
and does not wait for a dispatcher's connections. Windows, rates and breakers do not
apply, the endpoint's timeouts do, nothing is retried, and nothing is recorded.

The message id is random and below 2^32, the range of mailing 0: no stored message has it, and an
endpoint that detects repeated ids gets a new one every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import randbelow
from types import MappingProxyType
from typing import NamedTuple

from dispatcher.delivery.awaiting import ask
from dispatcher.described_answers import judge_of
from dispatcher.excerpts import Excerpts
from dispatcher.model.endpoints import DEFAULT_ENDPOINT, Answer, Endpoint, endpoint_name
from dispatcher.model.quotas import DayLimit
from dispatcher.model.requests import RequestForm
from dispatcher.model.states import ErrorClass
from server.config.types import ConfiguredEndpoint
from server.domain.call_rate import CallRate
from server.domain.errors import EndpointUnknown
from server.domain.messages import Attempt, message_id
from server.domain.principals import source
from server.domain.turns import Turns
from server.endpoints.senders import make_sender

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})

TESTS_PER_SECOND = 5.0
"""Probes and test messages that a caller may begin a second."""

PROBE_PHONE = "0"
"""No phone number begins with 0: an endpoint cannot deliver a probe to anybody."""

PROBE_TEXT = "A probe of the endpoint, not to be delivered."


class ProbeResult(NamedTuple):
    """The id of a request, and how it ended: also a successful request is an attempt here."""

    message_id: int
    attempt: Attempt


class EndpointProbes:
    """The configured endpoints, and single requests to them."""

    def __init__(self, configured: Sequence[ConfiguredEndpoint] = ()) -> None:
        self._configured = {one.endpoint.name: one for one in configured}
        self._rate = CallRate(TESTS_PER_SECOND)
        self._turns = Turns("probes and test messages at once", 8, 2, waiting=32, waiting_share=8)

    def take_turn(self) -> None:
        """Count a request of the current caller. Raise RateExceeded."""
        self._rate.take(source())

    @property
    def endpoints(self) -> list[Endpoint]:
        """All endpoints, in the order of their names."""
        return [self._configured[name].endpoint for name in sorted(self._configured)]

    def renew(self, one: ConfiguredEndpoint) -> None:
        """Use the secrets of this endpoint from the next request on."""
        self._configured[one.endpoint.name] = one

    @property
    def names(self) -> frozenset[str]:
        """The names that mailings may use.

        Mailings may come before the first endpoint is configured: they wait for the default one.
        """
        return frozenset(self._configured) or frozenset({DEFAULT_ENDPOINT})

    @property
    def rates(self) -> dict[str, float]:
        """The maximum rates of endpoints in messages a second, by their names; 0: no limit."""
        return {name: one.endpoint.max_rate for name, one in self._configured.items()}

    @property
    def day_limits(self) -> dict[str, DayLimit]:
        """The daily quotas of those endpoints that have one, by their names."""
        found = {name: one.endpoint.day_limit for name, one in self._configured.items()}
        return {name: limit for name, limit in found.items() if limit is not None}

    @property
    def forms(self) -> dict[str, RequestForm]:
        """The requests of those endpoints that describe them, by their names."""
        found = {name: one.endpoint.request for name, one in self._configured.items()}
        return {name: form for name, form in found.items() if form is not None}

    async def probe(self, endpoint: str) -> ProbeResult:
        """Send a text that reaches nobody; see `send`."""
        self.take_turn()
        return await self.send(endpoint, PROBE_PHONE, PROBE_TEXT)

    async def send(
        self, endpoint: str, phone: str, text: str, title: str = "", attributes: Mapping[str, str] = NO_ATTRIBUTES
    ) -> ProbeResult:
        """Send a text to a phone through an endpoint, '' being the default one. Raise EndpointUnknown.

        Where the endpoint's requests need more than that, `title` and `attributes` have it; what is missing is empty.
        """
        name = endpoint_name(endpoint)
        configured = self._configured.get(name)
        if configured is None:
            raise EndpointUnknown(name, self._configured)
        identity, began_at = message_id(0, 1 + randbelow(2**32 - 1)), datetime.now(UTC)
        values = configured.values_of(title, attributes)
        async with self._turns.turn(source()):
            answer = await _exchange(configured, identity, phone, text, values)
        verdict = judge_of(configured.endpoint)(answer)
        attempt = Attempt(
            number=1,
            at=began_at,
            endpoint=name,
            endpoint_status=answer.status,
            endpoint_code=verdict.endpoint_code,
            error_class=verdict.error_class,
            duration=timedelta(seconds=answer.duration),
            response_excerpt=verdict.excerpt and Excerpts(configured.endpoint).of(answer.body, phone, values),
        )
        return ProbeResult(identity, attempt)


async def _exchange(
    configured: ConfiguredEndpoint, identity: int, phone: str, text: str, values: Sequence[str]
) -> Answer:
    """Return the answer to one request on a new connection."""
    alone = configured._replace(endpoint=replace(configured.endpoint, max_concurrency=1))
    try:
        sender = make_sender(alone)
    except ValueError as error:  # the CA file was valid at the start
        return Answer(0, str(error).encode(), None, ErrorClass.TLS, False, 0.0)
    try:
        answer = await ask(sender, identity, phone, text, at_most_once=True, values=values)
        assert answer is not None  # nothing may forbid it to start
        return answer
    finally:
        await sender.close()
