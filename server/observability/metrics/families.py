"""The table of the service's own metrics; docs/observability.md explains each of them.

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
        "Messages that dispatchers recorded with a terminal status.",
    ),
    Family("mailing_attempts_total", "counter", ("endpoint", "class"), "Requests to endpoints, by result."),
    Family(
        "mailing_attempt_seconds",
        "histogram",
        ("endpoint",),
        "Duration of requests to endpoints.",
        ATTEMPT_BOUNDS,
    ),
    Family(
        "mailing_receipts_total",
        "counter",
        ("endpoint", "result"),
        "Requests of gateways to the receipts listener, by what became of them.",
    ),
    Family(
        "mailing_webhook_requests_total",
        "counter",
        ("webhook", "result"),
        "Requests to subscribers of the configuration: delivered, or failed and repeated later.",
    ),
    Family("mailing_batches_claimed_total", "counter", (), "Batches that dispatchers leased."),
    Family("mailing_batches_lost_total", "counter", (), "Batches whose lease expired before they were settled."),
    Family(
        "mailing_settle_seconds",
        "histogram",
        (),
        "Duration of the statements that record outcomes.",
        SETTLE_BOUNDS,
    ),
    Family(
        "mailing_retention_mailings_total",
        "counter",
        (),
        "Mailings whose messages this process removed because they were kept long enough.",
    ),
    Family(
        "mailing_retention_failures_total",
        "counter",
        (),
        "Failures to add or drop partitions, or to write messages to the archive; tried again.",
    ),
    Family("mailing_report_failed", "gauge", (), "1 while the last daily report that was due was not sent."),
    Family("mailing_dispatchers", "gauge", (), "Dispatchers that report to this process, including itself."),
    Family("mailing_dispatcher_restarts_total", "counter", (), "Dispatcher processes that exited unexpectedly."),
    Family("mailing_dispatcher_in_flight", "gauge", _LANE, "Requests in flight."),
    Family("mailing_dispatcher_concurrency_limit", "gauge", _LANE, "Current limit of requests in flight."),
    Family("mailing_dispatcher_waiting_messages", "gauge", _LANE, "Messages leased whose request has not started."),
    Family("mailing_dispatcher_breaker", "gauge", _LANE, "The circuit breaker: 0 closed, 1 half open, 2 open."),
    Family(
        "mailing_dispatcher_suspended",
        "gauge",
        (*_LANE, "reason"),
        "1 while nothing is sent because of what the endpoint answers: credentials, not_found or refuses_all.",
    ),
    Family("mailing_dispatcher_leases", "gauge", ("dispatcher",), "Batches leased by the dispatcher."),
    Family("mailing_dispatcher_poll_interval_seconds", "gauge", ("dispatcher",), "Current polling interval."),
    Family(
        "mailing_dispatcher_unrecorded_seconds",
        "gauge",
        ("dispatcher",),
        "How long outcomes could not be recorded; 0 when they can. From 1 on the dispatcher claims less, or nothing.",
    ),
    Family(
        "mailing_dispatcher_heartbeat_seconds",
        "gauge",
        ("dispatcher",),
        "How long ago the dispatcher last wrote to the database.",
    ),
    Family(
        "mailing_dispatcher_newer_schema",
        "gauge",
        ("dispatcher",),
        "1 while the database has a newer schema than the dispatcher's release, which then claims nothing.",
    ),
    Family(
        "mailing_database_errors_total", "counter", ("part",), "Uses of the database that failed and may be retried."
    ),
    Family("mailing_database_connections", "gauge", ("part", "state"), "Connections to the database."),
    Family("mailing_database_connections_max", "gauge", ("part",), "Maximum connections to the database."),
    Family(
        "mailing_standby_lag_seconds",
        "gauge",
        (),
        "How old what the standby shows may be; absent while that is not known, or nobody reads.",
    ),
    Family("mailing_watchers", "gauge", ("kind",), "Open streams of watchers."),
    Family(
        "mailing_journal_lag_seconds",
        "gauge",
        (),
        "How far the reader of the change feed is behind; 0 without watchers.",
    ),
    Family("mailing_database_up", "gauge", (), "Whether the database answered the last health check."),
    Family("mailing_backlog_messages", "gauge", ("endpoint",), "Pending messages of mailings that have not ended."),
    Family("mailing_open_batches", "gauge", ("endpoint",), "Batches that are not settled yet."),
    Family("mailing_leased_batches", "gauge", ("endpoint",), "Batches leased by any dispatcher."),
    Family(
        "mailing_due_lag_seconds",
        "gauge",
        ("endpoint",),
        "How long the oldest unleased batch has been due, of mailings without a rate.",
    ),
    Family("mailing_recheck_lag_seconds", "gauge", (), "How long the oldest check for new clients is overdue."),
    Family(
        "mailing_client_numbers_used_ratio",
        "gauge",
        (),
        "The share of all client numbers that were given; at 1 no client can be added.",
    ),
    Family("mailing_mailings", "gauge", ("state",), "Mailings that have not ended."),
    Family("mailing_dispatch_paused", "gauge", (), "Whether PauseDispatch stopped all dispatching."),
    Family("mailing_build_info", "gauge", ("version", "python"), "Always 1; the labels name the running version."),
)

FAMILIES = {family.name: family for family in _TABLE}
"""All of them by name."""

__all__ = ["FAMILIES", "Family", "Kind"]
