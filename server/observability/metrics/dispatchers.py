"""Figures of dispatchers: of one in this process, and the totals of several processes.

What a process did stays counted when it has ended, so that counters never go back.
"""

from __future__ import annotations

import time

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.states import BreakerState, Suspension
from server.observability.metrics.families import FAMILIES
from server.observability.metrics.samples import Samples, add, added, counters, of_histogram

HEARTBEAT = "mailing_dispatcher_heartbeat_seconds"

_BREAKER = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}


def samples_of(dispatcher: Dispatcher) -> Samples:
    """Return the figures of a dispatcher in this process, whose number is 0."""
    own, pools, counters, registry = "0", dispatcher.pools.values(), dispatcher.counters, dispatcher.registry
    return {
        "mailing_messages_total": {(name, status.name.lower()): n for (name, status), n in counters.messages.items()},
        "mailing_attempts_total": {(name, kind.name.lower()): n for (name, kind), n in counters.attempts.items()},
        "mailing_attempt_seconds": {(name,): of_histogram(one) for name, one in counters.latency.items()},
        "mailing_batches_claimed_total": {(): registry.claimed},
        "mailing_batches_lost_total": {(): registry.lost},
        "mailing_settle_seconds": {(): of_histogram(counters.settle)},
        "mailing_dispatchers": {(): 1},
        "mailing_dispatcher_restarts_total": {(): 0},
        "mailing_dispatcher_in_flight": {(own, pool.name): pool.in_flight for pool in pools},
        "mailing_dispatcher_concurrency_limit": {(own, pool.name): pool.limit.value for pool in pools},
        "mailing_dispatcher_waiting_messages": {(own, pool.name): pool.waiting for pool in pools},
        "mailing_dispatcher_breaker": {(own, pool.name): _BREAKER[pool.breaker.state] for pool in pools},
        "mailing_dispatcher_suspended": {
            (own, pool.name, reason.name.lower()): float(pool.breaker.suspension is reason)
            for pool in pools
            for reason in (Suspension.CREDENTIALS, Suspension.NOT_FOUND, Suspension.REFUSES_ALL)
        },
        "mailing_dispatcher_leases": {(own,): len(registry.leases)},
        "mailing_dispatcher_poll_interval_seconds": {(own,): dispatcher.poll_backoff.interval},
        "mailing_dispatcher_unrecorded_seconds": {(own,): dispatcher.recording.failing_for},
    }


class Totals:
    """The figures of dispatcher processes, by their number, as they last reported them."""

    def __init__(self) -> None:
        self._alive: dict[int, Samples] = {}
        self._ended: Samples = {}
        self._restarts = 0
        self.written_at = float("-inf")
        """When one of them last wrote to the database (monotonic)."""

    def report(self, number: int, samples: Samples) -> None:
        """Take over what a process reports of itself, which does not know its number."""
        for seconds in samples.get(HEARTBEAT, {}).values():
            if not isinstance(seconds, list):
                self.written_at = max(self.written_at, time.monotonic() - seconds)
        self._alive[number] = {
            name: {(str(number), *labels[1:]): value for labels, value in values.items()}
            if FAMILIES[name].per_dispatcher
            else values
            for name, values in samples.items()
        }

    def end(self, number: int, expected: bool) -> None:
        """Keep the counters of a process that has ended, without its gauges."""
        add(self._ended, counters(self._alive.pop(number, {})))
        self._restarts += not expected

    def samples(self) -> Samples:
        """Return all of them together."""
        own: Samples = {"mailing_dispatchers": {(): 0}, "mailing_dispatcher_restarts_total": {(): self._restarts}}
        return added([own, self._ended, *self._alive.values()])
