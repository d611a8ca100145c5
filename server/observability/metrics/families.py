"""The table of the service's own metrics; docs/metrics.md explains each of them.

Every figure belongs to a family of this table. `grpc_server_*` stands in `server.api.interceptors.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dispatcher.counters import ATTEMPT_BOUNDS, SETTLE_BOUNDS

Kind = Literal["counter", "gauge", "histogram"]


class Family(NamedTuple):
    """One metric. `bounds` are the upper ends of a histogram's ranges, in the unit of its name."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: Sequence[float] = ()

    @property
    def per_dispatcher(self) -> bool:
        """Whether each dispatcher has a value of its own; all others are added up."""
        return "dispatcher" in self.labels


_LANE = ("dispatcher", "endpoint")

_TABLE = (
    Family(
        "mailing_messages_total",
        "counter",
        ("endpoint", "status"),
        "Messages that dispatchers brought to a terminal status.",
    ),
    Family("mailing_attempts_total", "counter", ("endpoint", "class"), "Requests to endpoints by how they ended."),
    Family(
        "mailing_attempt_seconds",
        "histogram",
        ("endpoint",),
        "How long requests to endpoints took.",
        ATTEMPT_BOUNDS,
    ),
    Family("mailing_batches_claimed_total", "counter", (), "Batches that dispatchers leased."),
    Family("mailing_batches_lost_total", "counter", (), "Batches whose lease ran out before they were settled."),
    Family(
        "mailing_settle_seconds",
        "histogram",
        (),
        "How long the statements took that record outcomes.",
        SETTLE_BOUNDS,
    ),
    Family("mailing_dispatchers", "gauge", (), "Dispatchers that report to this process, itself included."),
    Family("mailing_dispatcher_restarts_total", "counter", (), "Dispatcher processes that ended by themselves."),
    Family("mailing_dispatcher_in_flight", "gauge", _LANE, "Requests under way."),
    Family("mailing_dispatcher_concurrency_limit", "gauge", _LANE, "The most requests under way at once, at present."),
    Family("mailing_dispatcher_waiting_messages", "gauge", _LANE, "Messages leased that nobody has begun to send."),
    Family("mailing_dispatcher_breaker", "gauge", _LANE, "The circuit breaker: 0 closed, 1 half open, 2 open."),
    Family("mailing_dispatcher_leases", "gauge", ("dispatcher",), "Batches held."),
    Family("mailing_dispatcher_poll_interval_seconds", "gauge", ("dispatcher",), "The present idle wait."),
    Family("mailing_database_errors_total", "counter", ("part",), "Uses of the database that failed for now."),
    Family("mailing_database_connections", "gauge", ("part", "state"), "Connections to the database."),
    Family("mailing_database_connections_max", "gauge", ("part",), "The most connections to the database."),
    Family("mailing_watchers", "gauge", ("kind",), "Streams that are being watched."),
    Family("mailing_journal_lag_seconds", "gauge", (), "Since when watchers of messages may miss changes; 0 if none."),
    Family("mailing_database_up", "gauge", (), "Whether the database answered when it was last asked."),
    Family("mailing_backlog_messages", "gauge", ("endpoint",), "Pending messages of mailings that are not over."),
    Family("mailing_open_batches", "gauge", ("endpoint",), "Batches that are not settled."),
    Family("mailing_leased_batches", "gauge", ("endpoint",), "Batches that a dispatcher holds."),
    Family(
        "mailing_due_lag_seconds",
        "gauge",
        ("endpoint",),
        "How long the oldest batch is due that nobody holds, of mailings without a rate.",
    ),
    Family("mailing_recheck_lag_seconds", "gauge", (), "How long the oldest look for new clients is overdue."),
    Family("mailing_mailings", "gauge", ("state",), "Mailings that are not over."),
    Family("mailing_dispatch_paused", "gauge", (), "Whether PauseDispatch stopped all dispatching."),
    Family("mailing_build_info", "gauge", ("version", "python"), "Always 1; the labels tell what runs."),
)

FAMILIES = {family.name: family for family in _TABLE}
"""All of them by name."""

__all__ = ["FAMILIES", "Family", "Kind"]
