"""When a mailing may send, and how much a day, in words: one wording for a mailing, its summary and the list."""

from __future__ import annotations

from mailing.cli.terminal.rates import length
from mailing.cli.terminal.tables import moment, short_moment
from mailing.sending_hours import hours_text
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.mailing_pb2 import Mailing


def start_facts(mailing: Mailing) -> list[tuple[str, str]]:
    """Return when a mailing starts: at one moment, or at a local time, whose first moment is known or not."""
    if not mailing.HasField("local_start"):
        return [("start", moment(mailing.start_time))]
    return [
        ("local start", f"{_civil(mailing.local_start)} by each client's clock"),
        ("begins", moment(mailing.begin_time)),
    ]


def short_start(mailing: Mailing) -> str:
    """Return the start as a cell of a list has it."""
    local = mailing.HasField("local_start")
    return f"{_civil(mailing.local_start)[5:]} local" if local else short_moment(mailing.start_time)


def plan_facts(mailing: Mailing) -> list[tuple[str, str]]:
    """Return what else bounds the sending of a mailing, '' for what does not."""
    hours = [hours_text(one) + ("" if one.timezone else " by each client's clock") for one in mailing.sending_hours]
    late = length(mailing.skip_after.seconds) if mailing.HasField("skip_after") else ""
    zone = mailing.max_per_day_timezone or "UTC"
    return [
        ("sending hours", "; ".join(hours)),
        ("holidays", mailing.holidays),
        ("skip after", late),
        ("max per day", f"{mailing.max_per_day:,} on each day of {zone}" if mailing.max_per_day else ""),
    ]


def plan_words(mailing: Mailing) -> str:
    """Return segment and plan on one line, '' for a mailing that has neither."""
    facts = [("segment", mailing.filter.segment), *plan_facts(mailing)]
    return "; ".join(f"{name}: {value}" for name, value in facts if value)


def _civil(time: CivilDateTime) -> str:
    text = f"{time.year:04}-{time.month:02}-{time.day:02} {time.hours:02}:{time.minutes:02}"
    return f"{text}:{time.seconds:02}" if time.seconds else text
