"""Endpoints: how they are doing."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.model.states import BreakerState


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """Whether messages are let through to an endpoint, and the last error, '' without one."""

    breaker: BreakerState = BreakerState.CLOSED
    last_error: str = ""
