"""The options that describe a mailing, the same for every command that takes one.

A command has a parameter of one of these classes; `session.command` makes an option of each field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from mailing import new_duration, new_local_time, new_mailing, new_timestamp
from mailing.builders import parse_moment
from mailing.cli.commands.options import (
    Attributes,
    ClientIds,
    FilterText,
    OperatorCodes,
    Tags,
    Timezones,
    only_one,
    read,
    read_filter,
    read_optional,
    read_pairs,
)
from mailing.sending_hours import parse_hours
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy

_WHEN = "RFC 3339 (local time without a zone), 'tomorrow 10:00', +10m from now, or now."
Title = Annotated[str | None, typer.Option("--title", help="Internal name; recipients do not see it.")]
Start = Annotated[str | None, typer.Option("--start", metavar="WHEN", help=f"When sending begins: {_WHEN}")]
End = Annotated[str | None, typer.Option("--end", metavar="WHEN", help=f"When sending ends: {_WHEN}")]
Hours = Annotated[
    list[str],
    typer.Option(
        "--hours", metavar="HOURS", help="Send only then: 'mon-fri 09:00-18:00 [ZONE]', by each client's clock; repeat."
    ),
]
LocalStart = Annotated[
    str | None,
    typer.Option("--local-start", metavar="WHEN", help="Start at this time in each client's zone: 'tomorrow 10:00'."),
]
SkipAfter = Annotated[
    str | None, typer.Option("--skip-after", metavar="SPAN", help="Do not send what is later than this, as 2h.")
]
Holidays = Annotated[str | None, typer.Option("--holidays", metavar="NAME", help="Calendar of days without sending.")]
Priority = Annotated[int | None, typer.Option("--priority", help="Higher priorities are sent first: -1000 to 1000.")]
MaxRate = Annotated[float | None, typer.Option("--max-rate", help="Maximum messages per second; 0: no limit.")]
MaxPerDay = Annotated[
    int | None,
    typer.Option("--max-per-day", help="Maximum messages per day; the rest waits for the next. 0: no limit."),
]
MaxPerDayTimezone = Annotated[
    str | None,
    typer.Option("--max-per-day-timezone", metavar="ZONE", help="Whose days --max-per-day counts; else UTC."),
]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Name of the endpoint; '': the default one.")]
Labels = Annotated[
    list[str], typer.Option("--label", metavar="NAME=VALUE", help="A label to find it by; repeat for several.")
]
MaxAttempts = Annotated[int | None, typer.Option("--max-attempts", help="Maximum number of attempts per message.")]
InitialBackoff = Annotated[
    str | None,
    typer.Option("--initial-backoff", metavar="SPAN", help="Delay after the first failure, as 500ms or 1s."),
]
MaxBackoff = Annotated[
    str | None, typer.Option("--max-backoff", metavar="SPAN", help="Maximum delay between attempts, as 5m.")
]
Snapshot = Annotated[bool, typer.Option("--snapshot", help="Only to clients that match at the start.")]
Open = Annotated[
    bool, typer.Option("--open", help="Also to clients added later, until it ends; the default where nobody is asked.")
]
AtMostOnce = Annotated[
    bool, typer.Option("--at-most-once", help="Do not retry when it is unclear whether the gateway accepted it.")
]
Important = Annotated[bool, typer.Option("--important", help="Ignore the per-client message limit.")]
TEXT_HELP = "The message; {tag}, {phone} and {attributes.NAME|default} are replaced."


@dataclass(slots=True)
class MailingFields:
    """The options of a mailing that is created or changed, as they were typed."""

    title: Title = None
    tag: Tags = field(default_factory=list)
    operator_code: OperatorCodes = field(default_factory=list)
    timezone: Timezones = field(default_factory=list)
    attribute: Attributes = field(default_factory=list)
    client_id: ClientIds = field(default_factory=list)
    filter_text: FilterText = ""
    start: Start = None
    end: End = None
    hours: Hours = field(default_factory=list)
    local_start: LocalStart = None
    skip_after: SkipAfter = None
    holidays: Holidays = None
    priority: Priority = None
    max_rate: MaxRate = None
    max_per_day: MaxPerDay = None
    max_per_day_timezone: MaxPerDayTimezone = None
    endpoint: Endpoint = None
    max_attempts: MaxAttempts = None
    initial_backoff: InitialBackoff = None
    max_backoff: MaxBackoff = None
    label: Labels = field(default_factory=list)

    def given(self) -> dict[str, Any]:
        """Return the given fields by their names in the contract; raise a usage error that names the option."""
        chosen = read_filter(self.tag, self.operator_code, self.timezone, self.attribute, self.client_id)
        only_one(self.filter_text, chosen)
        fields = {
            "title": self.title,
            "filter": chosen,
            "filter_text": self.filter_text or None,
            "start_time": read_optional("--start", new_timestamp, self.start),
            "end_time": read_optional("--end", new_timestamp, self.end),
            "sending_hours": [read("--hours", parse_hours, text) for text in self.hours] or None,
            "local_start": read_optional("--local-start", parse_local_start, self.local_start),
            "skip_after": read_optional("--skip-after", new_duration, self.skip_after),
            "holidays": self.holidays,
            "priority": self.priority,
            "max_rate": self.max_rate,
            "max_per_day": self.max_per_day,
            "max_per_day_timezone": self.max_per_day_timezone,
            "endpoint": self.endpoint,
            "retry": self._retry(),
            "labels": read_pairs("--label", self.label) or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _retry(self) -> RetryPolicy | None:
        if self.max_attempts is None and self.initial_backoff is None and self.max_backoff is None:
            return None
        return RetryPolicy(
            max_attempts=self.max_attempts or 0,
            initial_backoff=read_optional("--initial-backoff", new_duration, self.initial_backoff),
            max_backoff=read_optional("--max-backoff", new_duration, self.max_backoff),
        )


@dataclass(slots=True)
class NewMailing(MailingFields):
    """The options of a new mailing, except for its text."""

    snapshot: Snapshot = False
    open: Open = False
    at_most_once: AtMostOnce = False
    important: Important = False

    @property
    def says_audience(self) -> bool:
        """Whether an option says which clients the mailing takes in."""
        return self.snapshot or self.open

    def mailing(self, text: str) -> Mailing:
        """Return the mailing; raise a usage error that names the option."""
        if self.snapshot and self.open:
            raise typer.BadParameter("one of them", param_hint=["--snapshot", "--open"])
        mailing = new_mailing(text, snapshot=self.snapshot, at_most_once=self.at_most_once, important=self.important)
        mailing.MergeFrom(Mailing(**self.given()))
        return mailing

    def is_given(self) -> bool:
        """Return whether any of the options was given."""
        return self != NewMailing()


def parse_local_start(text: str) -> CivilDateTime:
    """Return a date and time on every clock, from "tomorrow 10:00" or "2030-01-31 10:00". Raise ValueError."""
    try:
        return new_local_time(text)
    except ValueError:
        if text[:1].isdigit() or text[:1] in ("+", "") or text == "now":
            raise
        return new_local_time(parse_moment(text).replace(tzinfo=None))
