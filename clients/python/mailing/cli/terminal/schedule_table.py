"""One schedule as a table of facts, and its mailings as rows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mailing.cli.terminal.mailing_table import audience_words
from mailing.cli.terminal.rates import length
from mailing.cli.terminal.tables import enum_name, facts_table, moment
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.schedule_pb2 import Schedule


def when(schedule: Schedule) -> str:
    """Return the recurrence on one line."""
    return schedule.cron or "; ".join(schedule.rrule.splitlines())


def overlap_name(schedule: Schedule) -> str:
    """Return the overlap policy in lower case."""
    return enum_name(schedule, "overlap").lower()


def schedule_table(schedule: Schedule) -> Table:
    """Return the facts of one schedule; its times are local to this machine."""
    state = "paused" if schedule.paused else "" if schedule.next_times else "has come to its end"
    return facts_table(
        [
            ("id", str(schedule.id or "")),
            ("title", schedule.title),
            ("state", state),
            ("when", f"{when(schedule)} in {schedule.timezone}"),
            *(("next" if not index else "", moment(one)) for index, one in enumerate(schedule.next_times)),
            ("ends after", length(schedule.end_after.seconds) if schedule.HasField("end_after") else ""),
            ("if not over", overlap_name(schedule)),
            ("catch-up", length(schedule.catch_up.seconds)),
            ("text", schedule.mailing.text),
            ("audience", audience_words(schedule.mailing)),
            ("last mailing", str(schedule.last_mailing_id or "")),
            ("etag", schedule.etag),
        ]
    )


def history_row(mailing: Mailing) -> Sequence[str]:
    """Return a mailing of a schedule, with the occurrence for which it was made."""
    progress = mailing.progress
    occurrence = moment(mailing.occurrence_time) if mailing.HasField("occurrence_time") else "triggered"
    counts = (progress.total, progress.delivered, progress.failed)
    return (str(mailing.id), occurrence, enum_name(mailing, "state"), *(f"{count:,}" for count in counts))
