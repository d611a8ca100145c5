"""Figures of dispatchers: of one in this process, and the totals of several processes.

What a process did stays counted when it has ended, so that counters never go back.
"""

from __future__ import annotations

from dispatcher.counters import Tally
from dispatcher.dispatcher import Dispatcher
from dispatcher.model.states import BreakerState
from server.observability.metrics.families import FAMILIES
from server.observability.metrics.samples import Figures, add, added, counters, of_histogram
from server.storage.reach import Failures

_BREAKER = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}


def figures_of(dispatcher: Dispatcher, tally: Tally) -> Figures:
    """Returns the figures of a dispatcher in this process, whose number is 0."""
    own, lanes = "0", dispatcher.lanes
    return {
        "mailing_messages_total": {(name, status.name.lower()): n for (name, status), n in tally.messages.items()},
        "mailing_attempts_total": {(name, kind.name.lower()): n for (name, kind), n in tally.attempts.items()},
        "mailing_attempt_seconds": {(name,): of_histogram(one) for name, one in tally.latency.items()},
        "mailing_batches_claimed_total": {(): tally.claimed},
        "mailing_batches_lost_total": {(): tally.lost},
        "mailing_settle_seconds": {(): of_histogram(tally.settle)},
        "mailing_database_errors_total": {("dispatcher",): Failures.count},
        "mailing_dispatchers": {(): 1},
        "mailing_dispatcher_restarts_total": {(): 0},
        "mailing_dispatcher_in_flight": {(own, lane.name): lane.active for lane in lanes},
        "mailing_dispatcher_concurrency_limit": {(own, lane.name): lane.limit.value for lane in lanes},
        "mailing_dispatcher_waiting_messages": {(own, lane.name): lane.waiting for lane in lanes},
        "mailing_dispatcher_breaker": {(own, lane.name): _BREAKER[lane.breaker.state] for lane in lanes},
        "mailing_dispatcher_leases": {(own,): dispatcher.leases},
        "mailing_dispatcher_poll_interval_seconds": {(own,): dispatcher.pacer.interval},
    }


class Totals:
    """The figures of dispatcher processes, by their number, as they last told them."""

    def __init__(self) -> None:
        self._alive: dict[int, Figures] = {}
        self._ended: Figures = {}
        self._restarts = 0

    def report(self, number: int, figures: Figures) -> None:
        """Takes over what a process tells of itself, which does not know its number."""
        self._alive[number] = {
            name: {(str(number), *labels[1:]): value for labels, value in values.items()}
            if FAMILIES[name].per_dispatcher
            else values
            for name, values in figures.items()
        }

    def end(self, number: int, expected: bool) -> None:
        """Keeps the counters of a process that has ended, without its gauges."""
        add(self._ended, counters(self._alive.pop(number, {})))
        self._restarts += not expected

    def figures(self) -> Figures:
        """Returns all of them together."""
        own: Figures = {"mailing_dispatchers": {(): 0}, "mailing_dispatcher_restarts_total": {(): self._restarts}}
        return added([own, self._ended, *self._alive.values()])
