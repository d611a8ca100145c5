"""When calls and streams are repeated: which may be, after how long, and what gRPC itself does of it.

Nothing here waits or calls: the client and its asyncio twin share these decisions.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from mailing.errors import MailingError
from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    schedule_service_pb2,
    segment_service_pb2,
)

MAX_ATTEMPTS = 5
"""How often a call is made at the most, the first time included."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before the next attempt; they double, with random jitter."""

_FILES = (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    schedule_service_pb2,
    segment_service_pb2,
)

_ENDED = {"READER_TOO_SLOW", "SHUTTING_DOWN", "CONNECTION_AGED"}
"""Reasons with which a stream ends that can be resumed."""


def service_config() -> str:
    """Return gRPC's service config: all addresses in turn, and safe calls again while the service is UNAVAILABLE."""
    names = [{"service": method.containing_service.full_name, "method": method.name} for method in _repeatable()]
    policy = {
        "maxAttempts": MAX_ATTEMPTS,
        "initialBackoff": f"{FIRST_PAUSE}s",
        "maxBackoff": f"{LONGEST_PAUSE}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": policy}],
    }
    return json.dumps(config)


def _repeatable() -> Iterator[MethodDescriptor]:
    """Yield reads, and creations, whose request id makes a second call return what the first one made."""
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                reads = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
                if reads or method.name.startswith("Create") or method.name == "TriggerSchedule":
                    yield method


_REQUESTS = frozenset(method.input_type.full_name for method in _repeatable())
"""The requests of these methods; each method has a request of its own."""


def with_request_id(request: Any) -> Any:
    """Return the request, with an id of its own if it is a creation without one: a copy then."""
    if request.DESCRIPTOR.full_name not in _REQUESTS or getattr(request, "request_id", None) != "":
        return request
    named = type(request)()
    named.CopyFrom(request)
    named.request_id = str(uuid4())
    return named


class Attempts:
    """The attempts of one unary call, which share its `timeout` in seconds."""

    def __init__(self, request: Any, timeout: float) -> None:
        self._repeatable = request.DESCRIPTOR.full_name in _REQUESTS
        self._ends_at = time.monotonic() + timeout
        self._failed = 0

    @property
    def remaining(self) -> float:
        """The seconds that are left."""
        return max(self._ends_at - time.monotonic(), 0.0)

    def pause(self, failure: MailingError) -> float:
        """Return how many seconds the service asks to wait before the next attempt; raise `failure` without one."""
        self._failed += 1
        delay = failure.retry_delay
        if not (delay and self._repeatable and self._failed < MAX_ATTEMPTS and delay < self.remaining):
            raise failure
        return delay


class Outage:
    """How long the service has been unreachable for a stream, and how long to wait for it.

    `patience` is the limit in seconds, None for none. A service that never answered is not waited for.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._answered_at: float | None = None
        self._token_refused = False
        self._pause = FIRST_PAUSE

    def end(self) -> None:
        """Note that the service answered."""
        self._answered_at, self._token_refused, self._pause = time.monotonic(), False, FIRST_PAUSE

    def pause(self, failure: MailingError) -> float:
        """Return the seconds to wait before the stream is opened again; raise `failure` when that does not help."""
        if self._answered_at is None or not (self._may_be_renewed(failure) or _passes(failure)):
            raise failure
        if self._patience is not None and time.monotonic() - self._answered_at > self._patience:
            raise failure
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - many clients must not return at once
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return max(pause, failure.retry_delay)

    def _may_be_renewed(self, failure: MailingError) -> bool:
        """Return whether the token was revoked or has expired, and its function was not asked for another one since."""
        if self._token_refused or failure.code.name != "UNAUTHENTICATED":
            return False
        self._token_refused = True
        return True


def _passes(failure: MailingError) -> bool:
    unavailable = failure.code.name == "UNAVAILABLE"
    return unavailable or failure.is_transport or failure.retry_delay > 0 or failure.reason in _ENDED
