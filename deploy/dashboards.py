"""Writes the Grafana dashboards in deploy/grafana: `python deploy/dashboards.py`.

What is shown stands here, once and briefly; the files are what Grafana imports. Figures of the
whole database are the same at every server, so their maximum is taken, never their sum.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

FOLDER = Path(__file__).resolve().parent / "grafana"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT, COLUMNS = 8, 24
JOB = 'job=~"$job"'
LANE = f'{JOB},endpoint=~"$endpoint"'
MAILING_CALL = f'{JOB},grpc_service="mailing.v1.MailingService"'
CALL = f'{JOB},grpc_service=~"$service",grpc_method=~"$method"'
UNARY = f'{CALL},grpc_type="UNARY"'


class Panel(NamedTuple):
    """`queries` are pairs of an expression and its legend; `width` is in 24ths of the screen."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 8
    kind: Literal["timeseries", "stat"] = "timeseries"
    about: str = ""
    states: dict[float, str] | None = None


class Dashboard(NamedTuple):
    """`variables` are pairs of a name and the query of its values."""

    name: str
    title: str
    about: str
    variables: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]


def rate(metric: str, selector: str, by: str = "") -> str:
    """Events a second of a counter."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, selector: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', selector, f'le, {by}' if by else 'le')})"


def quantiles(histogram: str, selector: str) -> tuple[tuple[str, str], ...]:
    """Return the median, p90 and p99 of a histogram."""
    return tuple((quantile(share, histogram, selector), f"p{share * 100:.0f}") for share in (0.5, 0.9, 0.99))


def most(metric: str, by: str, selector: str = JOB) -> str:
    """Return a figure of the whole database, which every server tells."""
    return f"max{f' by ({by})' if by else ''} ({metric}{{{selector}}})"


def failed_share(selector: str) -> str:
    """Return the share of requests that did not deliver."""
    failed = f'{selector},class!="none"'
    return f"{rate('mailing_attempts_total', failed)} / {rate('mailing_attempts_total', selector)}"


BREAKER = {0.0: "closed", 1.0: "half open", 2.0: "open"}
OVERVIEW = Dashboard(
    "overview",
    "Mailing / Overview",
    "Is everything delivered, and in time?",
    (),
    (
        Panel("Delivered", ((rate("mailing_messages_total", f'{JOB},status="delivered"'), ""),), "mps", 4, "stat"),
        Panel("Backlog", ((f"sum({most('mailing_backlog_messages', 'endpoint')})", ""),), "short", 4, "stat"),
        Panel("Oldest due work", ((most("mailing_due_lag_seconds", ""), ""),), "s", 4, "stat"),
        Panel("Dispatchers", ((f"sum(mailing_dispatchers{{{JOB}}})", ""),), "short", 4, "stat"),
        Panel(
            "Database", ((f"min(mailing_database_up{{{JOB}}})", ""),), "short", 4, "stat", "", {0.0: "away", 1.0: "up"}
        ),
        Panel("Failed attempts", ((failed_share(JOB), ""),), "percentunit", 4, "stat"),
        Panel("Messages settled", ((rate("mailing_messages_total", JOB, "status"), "{{status}}"),), "mps", 12),
        Panel("Attempts", ((rate("mailing_attempts_total", JOB, "class"), "{{class}}"),), "reqps", 12),
        Panel("Webhooks", ((rate("mailing_webhook_requests_total", JOB, "result"), "{{result}}"),), "reqps", 12),
        Panel("Receipts", ((rate("mailing_receipts_total", JOB, "result"), "{{result}}"),), "reqps", 12),
        Panel("Backlog by endpoint", ((most("mailing_backlog_messages", "endpoint"), "{{endpoint}}"),)),
        Panel(
            "Batches",
            (
                (f"sum({most('mailing_open_batches', 'endpoint')})", "open"),
                (f"sum({most('mailing_leased_batches', 'endpoint')})", "leased"),
            ),
        ),
        Panel(
            "Oldest due work by endpoint",
            ((most("mailing_due_lag_seconds", "endpoint"), "{{endpoint}}"),),
            "s",
            about="Of mailings without a rate: the others wait because their rate makes them.",
        ),
        Panel("Time to settle a batch", quantiles("mailing_settle_seconds", JOB), "s"),
        Panel(
            "Database connections",
            (
                (f"sum by (part, state) (mailing_database_connections{{{JOB}}})", "{{part}} {{state}}"),
                (f"sum by (part) (mailing_database_connections_max{{{JOB}}})", "{{part}} at most"),
            ),
        ),
        Panel("Database errors", ((rate("mailing_database_errors_total", JOB, "part"), "{{part}}"),), "ops"),
        Panel(
            "Batches leased and lost",
            (
                (rate("mailing_batches_claimed_total", JOB), "leased"),
                (rate("mailing_batches_lost_total", JOB), "lost"),
            ),
            "ops",
        ),
        Panel(
            "Batches held by dispatchers",
            ((f"mailing_dispatcher_leases{{{JOB}}}", "{{instance}} {{dispatcher}}"),),
        ),
        Panel(
            "Time for which outcomes could not be recorded",
            ((f"mailing_dispatcher_unrecorded_seconds{{{JOB}}}", "{{instance}} {{dispatcher}}"),),
            "s",
        ),
        Panel(
            "Idle wait of dispatchers",
            ((f"mailing_dispatcher_poll_interval_seconds{{{JOB}}}", "{{instance}} {{dispatcher}}"),),
            "s",
        ),
        Panel(
            "Time since the last heartbeat of dispatchers",
            ((f"mailing_dispatcher_heartbeat_seconds{{{JOB}}}", "{{instance}} {{dispatcher}}"),),
            "s",
        ),
        Panel("Age of what the standby shows", ((f"mailing_standby_lag_seconds{{{JOB}}}", "{{instance}}"),), "s"),
        Panel(
            "Dispatchers of an older release than the schema",
            ((f"mailing_dispatcher_newer_schema{{{JOB}}}", "{{instance}} {{dispatcher}}"),),
        ),
        Panel(
            "Dispatching",
            ((most("mailing_dispatch_paused", ""), "dispatching"),),
            states={0.0: "on", 1.0: "paused"},
        ),
        Panel("Dispatcher processes that ended", ((rate("mailing_dispatcher_restarts_total", JOB), "ended"),), "ops"),
        Panel("CPU of the server", ((f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),)),
        Panel("Memory of the server", ((f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),), "bytes"),
        Panel("Release", ((f"count by (version) (mailing_build_info{{{JOB}}})", "{{version}}"),)),
    ),
)

MAILING = Dashboard(
    "mailing",
    "Mailing / Mailings",
    "How mailings go: all of them together, as figures name no single one. `mailing report` does.",
    (("endpoint", "label_values(mailing_backlog_messages, endpoint)"),),
    (
        Panel("Mailings that are not over", ((most("mailing_mailings", "state"), "{{state}}"),)),
        Panel("Messages to be sent", ((most("mailing_backlog_messages", "endpoint", LANE), "{{endpoint}}"),)),
        Panel(
            "Time until everything is sent",
            (
                (
                    most("mailing_backlog_messages", "endpoint", LANE)
                    + " / "
                    + rate("mailing_messages_total", LANE, "endpoint"),
                    "{{endpoint}}",
                ),
            ),
            "s",
            about="At the present rate, and without the windows of clients.",
        ),
        Panel(
            "Delivered",
            ((rate("mailing_messages_total", f'{LANE},status="delivered"', "endpoint"), "{{endpoint}}"),),
            "mps",
            12,
        ),
        Panel(
            "Not delivered",
            ((rate("mailing_messages_total", f'{LANE},status!="delivered"', "status"), "{{status}}"),),
            "mps",
            12,
        ),
        Panel(
            "Requests per message settled",
            ((rate("mailing_attempts_total", LANE) + " / " + rate("mailing_messages_total", LANE), "requests"),),
        ),
        Panel("Looks for new clients overdue", ((most("mailing_recheck_lag_seconds", ""), "overdue"),), "s"),
        Panel("Client numbers given", ((most("mailing_client_numbers_used_ratio", ""), "of all"),), "percentunit"),
        Panel(
            "Mailings whose messages were kept long enough",
            (
                (rate("mailing_retention_mailings_total", JOB), "removed"),
                (rate("mailing_retention_failures_total", JOB), "failures"),
            ),
        ),
        Panel("Daily report not sent", ((most("mailing_report_failed", ""), "not sent"),)),
        Panel("Streams being watched", ((f"sum by (kind) (mailing_watchers{{{JOB}}})", "{{kind}}"),)),
        Panel("Watchers behind", ((f"mailing_journal_lag_seconds{{{JOB}}}", "{{instance}}"),), "s"),
        Panel(
            "Calls about mailings",
            (
                (
                    rate("grpc_server_handled_total", f'{JOB},grpc_service="mailing.v1.MailingService"', "grpc_method"),
                    "{{grpc_method}}",
                ),
            ),
            "reqps",
            16,
        ),
    ),
)

ENDPOINT = Dashboard(
    "endpoint",
    "Mailing / Endpoint",
    "How an endpoint takes what it is sent.",
    (("endpoint", "label_values(mailing_attempts_total, endpoint)"),),
    (
        Panel(
            "Circuit breaker",
            ((f"max by (endpoint) (mailing_dispatcher_breaker{{{LANE}}})", "{{endpoint}}"),),
            "short",
            8,
            "stat",
            "The worst that any dispatcher sees.",
            BREAKER,
        ),
        Panel("Failed attempts", ((failed_share(LANE), ""),), "percentunit", 8, "stat"),
        Panel("p99 of requests", ((quantile(0.99, "mailing_attempt_seconds", LANE), ""),), "s", 8, "stat"),
        Panel(
            "Requests by how they ended", ((rate("mailing_attempts_total", LANE, "class"), "{{class}}"),), "reqps", 12
        ),
        Panel("Time of requests", quantiles("mailing_attempt_seconds", LANE), "s", 12),
        Panel(
            "Requests under way",
            (
                (f"sum by (endpoint) (mailing_dispatcher_in_flight{{{LANE}}})", "{{endpoint}}"),
                (f"sum by (endpoint) (mailing_dispatcher_concurrency_limit{{{LANE}}})", "{{endpoint}} limit"),
            ),
            about="The limit is found out: it grows while that helps and halves when the endpoint is overloaded.",
        ),
        Panel(
            "Messages leased and waiting",
            ((f"sum by (endpoint) (mailing_dispatcher_waiting_messages{{{LANE}}})", "{{endpoint}}"),),
        ),
        Panel(
            "Breaker by dispatcher",
            ((f"mailing_dispatcher_breaker{{{LANE}}}", "{{instance}} {{dispatcher}} {{endpoint}}"),),
            states=BREAKER,
        ),
        Panel(
            "Suspended",
            ((f"max by (endpoint, reason) (mailing_dispatcher_suspended{{{LANE}}})", "{{endpoint}} {{reason}}"),),
            about="1 while nothing is sent because of what the endpoint answers.",
        ),
        Panel("Messages settled", ((rate("mailing_messages_total", LANE, "status"), "{{status}}"),), "mps"),
        Panel("Backlog", ((most("mailing_backlog_messages", "endpoint", LANE), "{{endpoint}}"),)),
        Panel("Oldest due work", ((most("mailing_due_lag_seconds", "endpoint", LANE), "{{endpoint}}"),), "s"),
    ),
)

GRPC = Dashboard(
    "grpc",
    "Mailing / gRPC",
    "Who calls what, how fast, and how it ends.",
    (
        ("service", "label_values(grpc_server_started_total, grpc_service)"),
        ("method", 'label_values(grpc_server_started_total{grpc_service=~"$service"}, grpc_method)'),
    ),
    (
        Panel("Calls", ((rate("grpc_server_started_total", CALL, "grpc_method"), "{{grpc_method}}"),), "reqps", 12),
        Panel("How calls end", ((rate("grpc_server_handled_total", CALL, "grpc_code"), "{{grpc_code}}"),), "reqps", 12),
        Panel(
            "p99 of unary calls",
            (
                (
                    quantile(0.99, "grpc_server_handling_seconds", UNARY, "grpc_method"),
                    "{{grpc_method}}",
                ),
            ),
            "s",
            12,
        ),
        Panel(
            "Median of unary calls",
            (
                (
                    quantile(0.5, "grpc_server_handling_seconds", UNARY, "grpc_method"),
                    "{{grpc_method}}",
                ),
            ),
            "s",
            12,
        ),
        Panel(
            "Calls under way",
            (
                (
                    f"sum by (grpc_method) (grpc_server_started_total{{{CALL}}})"
                    f" - sum by (grpc_method) (grpc_server_handled_total{{{CALL}}})",
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Calls that the service failed",
            (
                (
                    rate(
                        "grpc_server_handled_total",
                        f'{CALL},grpc_code=~"INTERNAL|UNKNOWN|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"',
                        "grpc_method, grpc_code",
                    ),
                    "{{grpc_method}} {{grpc_code}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Messages of calls",
            (
                (rate("grpc_server_msg_received_total", CALL), "received"),
                (rate("grpc_server_msg_sent_total", CALL), "sent"),
            ),
            "mps",
        ),
    ),
)

DASHBOARDS = (OVERVIEW, MAILING, ENDPOINT, GRPC)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it."""
    return {
        "uid": f"mailing-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["mailing"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["mailing"], "title": "Mailing", "asDropdown": True}],
        "templating": {"list": [_DATASOURCE, *(_variable(*one) for one in (_JOB, *dashboard.variables))]},
        "panels": _placed(dashboard.panels),
    }


_JOB = ("job", "label_values(mailing_build_info, job)")
_DATASOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Put panels beside one another as far as there is room, then below."""
    placed, x, y, tallest = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        height = HEIGHT // 2 if panel.kind == "stat" else HEIGHT
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x, tallest = x + panel.width, max(tallest, height)
    return placed


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.states is not None:
        options = {f"{value:g}": {"text": text, "index": at} for at, (value, text) in enumerate(panel.states.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto"}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }


def text_of(dashboard: Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(document(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for one in DASHBOARDS:
        (FOLDER / f"{one.name}.json").write_text(text_of(one), encoding="utf-8")
