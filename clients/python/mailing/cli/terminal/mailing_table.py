"""One mailing as a table of facts, and its audience in words."""

from __future__ import annotations

from google.protobuf.text_format import MessageToString
from rich.table import Table

from mailing.cli.terminal.plan import plan_facts, start_facts
from mailing.cli.terminal.tables import enum_name, facts_table, moment, pairs
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing


def audience_words(mailing: Mailing) -> str:
    """Return which clients an audience takes in, in words."""
    if mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT:
        return "as they are at the start"
    until = moment(mailing.end_time)
    return f"also clients added later, until {until}" if until else "also clients added later, until it is cancelled"


def mailing_table(mailing: Mailing) -> Table:
    """Return the facts and the progress of one mailing."""
    return facts_table(
        [
            ("id", str(mailing.id)),
            ("title", mailing.title),
            ("state", enum_name(mailing, "state")),
            ("text", mailing.text),
            ("audience", f"{_filter(mailing.filter) or 'all clients'}, {audience_words(mailing)}"),
            *start_facts(mailing),
            ("end", moment(mailing.end_time)),
            *plan_facts(mailing),
            ("semantics", enum_name(mailing, "semantics").lower().replace("_", " ")),
            ("priority", str(mailing.priority or "")),
            ("max rate", f"{mailing.max_rate:g}/s" if mailing.max_rate else ""),
            ("endpoint", mailing.endpoint),
            ("labels", pairs(mailing.labels)),
            *_progress(mailing),
            ("etag", mailing.etag),
        ]
    )


def _progress(mailing: Mailing) -> list[tuple[str, str]]:
    progress = mailing.progress
    counts = ("total", "pending", "delivered", "failed", "expired", "cancelled", "skipped", "unknown", "attempts")
    shown = [(name, getattr(progress, name)) for name in counts]
    return [(name, f"{count:,}") for name, count in shown if count or name in ("total", "delivered")] + [
        ("first delivery", moment(progress.first_delivery_time)),
        ("last delivery", moment(progress.last_delivery_time)),
    ]


def _filter(chosen: ClientFilter) -> str:
    lists = ("tags", "operator_codes", "timezones", "client_ids")
    parts = [f"{name}: {', '.join(map(str, getattr(chosen, name)))}" for name in lists if getattr(chosen, name)]
    if chosen.segment:
        parts.insert(0, f"segment: {chosen.segment}")
    if chosen.attributes:
        parts.append(f"attributes: {pairs(chosen.attributes)}")
    rest = ClientFilter()
    rest.CopyFrom(chosen)
    for name in (*lists, "attributes", "segment"):
        rest.ClearField(name)  # type: ignore[arg-type]
    if text := MessageToString(rest, as_one_line=True, as_utf8=True):
        parts.append(text)
    return "; ".join(parts)
