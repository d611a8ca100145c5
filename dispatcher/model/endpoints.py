"""Endpoints: where messages are sent, what their answers are, and what all replicas share about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dispatcher.model.answers import AnswerRules
from dispatcher.model.quotas import DayLimit
from dispatcher.model.requests import RequestForm
from dispatcher.model.states import BreakerState, ErrorClass, Suspension

DEFAULT_ENDPOINT = "default"
"""The name of the endpoint that a mailing without one uses."""


def endpoint_name(chosen: str) -> str:
    """Return the name of the endpoint that a mailing with this choice uses; '' chooses none."""
    return chosen or DEFAULT_ENDPOINT


@dataclass(frozen=True, slots=True)
class SuccessRule:
    """Which answers of an endpoint say that it took the message.

    One of the `statuses`, each from 200 to 299, and, if `needs_body`, a body that is a JSON
    object whose `code_field` holds one of the `accepted` integers and strings, type for type:
    0 is neither "0" nor 0.0 nor false. Without `needs_body` the status alone decides. Raises
    ValueError, which begins with the attribute's name.
    """

    statuses: frozenset[int] = frozenset(range(200, 300))
    needs_body: bool = True
    code_field: str = "code"
    accepted: frozenset[int | str] = frozenset({0})

    def __post_init__(self) -> None:
        if not self.statuses or not self.statuses <= frozenset(range(200, 300)):
            raise ValueError("statuses must be some of 200 to 299")
        if not self.accepted or not all(type(value) in (int, str) for value in self.accepted):
            raise ValueError("accepted must be integers or strings, at least one")


DEFAULT_SUCCESS = SuccessRule()
"""What an endpoint without a rule of its own says: any 2xx with the integer `code` 0."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages are POSTed to.

    Sources: the environment or the endpoints file, never a request. Times are seconds.
    `url` ends where the message id is to be appended. `max_rate` is in messages a second over
    all replicas, 0 without a limit. `request` says how requests look where they are not those of the
    delivery protocol, `answers` how answers are read where `success` does not suffice. While one
    `awaits_token`, nothing can be sent there. `secrets` are what its requests hold beside the token
    and nobody may see.
    """

    name: str
    url: str
    token: str
    total_timeout: float = 10.0
    connect_timeout: float = 3.0
    max_concurrency: int = 1024
    max_response_bytes: int = 65536
    ca_file: str | None = None
    max_rate: float = 0.0
    success: SuccessRule = DEFAULT_SUCCESS
    request: RequestForm | None = None
    answers: AnswerRules | None = None
    awaits_token: bool = False
    day_limit: DayLimit | None = None
    secrets: tuple[str, ...] = ()

    @property
    def messages_per_request(self) -> int:
        """How many messages one request carries at most."""
        batch = self.request.batch if self.request else None
        return batch.text.max if batch else 1

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without a user and password, and without the values of its query."""
        path, mark, query = self.url.partition("?")
        return re.sub(r"(?<=://)[^/]*@", "", path) + mark + "&".join(map(_masked, query.split("&")))

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.shown_url!r})"


def _masked(parameter: str) -> str:
    """Return a parameter of a query without its value; what has no name may be all secret."""
    name, sign, value = parameter.partition("=")
    return f"{name}=***" if sign and value else name + sign if sign or not name else "***"


@dataclass(slots=True)
class Answer:
    """What one request came to, before anybody judges it.

    `status` is the HTTP status, 0 without one. `body` is complete or, with an error, what
    had arrived. `retry_after` is the header's raw value. `error` is NONE for any complete
    HTTP answer, else CONNECT to TOO_LARGE. `sent` says whether the endpoint may have seen
    the request. `duration` is in seconds. `headers` are those that the endpoint's description looks at,
    by their names in lower case.
    """

    status: int
    body: bytes
    retry_after: str | None
    error: ErrorClass
    sent: bool
    duration: float
    headers: Mapping[str, str] | None = None


class EndpointState(NamedTuple):
    """What all replicas know of an endpoint; `probe_in` is when it may be tried next, in seconds.

    `pause_in` is for how many seconds nothing is to be sent because it asked for patience.
    """

    breaker: BreakerState
    probe_in: float
    suspension: Suspension = Suspension.NONE
    pause_in: float = 0.0


class SlotRequest(NamedTuple):
    """A request for up to `wanted` moments at which messages may leave, `rate` a second, under `key`."""

    key: str
    rate: float
    wanted: int


class Slots(NamedTuple):
    """Moments given to this replica: `granted` of them, the first at `since`, `step` seconds apart.

    `since` is the database's time in seconds since the epoch, also when there are none: then it is
    when the next one will be free.
    """

    since: float
    step: float
    granted: int
