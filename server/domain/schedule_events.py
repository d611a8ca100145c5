"""Entries of the event log about schedules: what callers did to them, and what came of their occurrences."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from dispatcher.outcome_events import Event, Level
from server.domain.schedules import Decision, Schedule


def schedule_event(schedule_id: int, title: str, what: str, mailing_id: int = 0) -> Event:
    """Return the event of a schedule that was created, paused, resumed, triggered or deleted; `what` says which."""
    return _event(Level.INFO, what, f"{_named(schedule_id, title)} was {what}.", schedule_id, mailing_id)


def schedule_updated(schedule_id: int, title: str, changed: Collection[str]) -> list[Event]:
    """Return the event of a schedule of which these fields changed; none when none did."""
    names = ", ".join(sorted(changed))
    text = f"{_named(schedule_id, title)} was updated: {names}."
    return [_event(Level.INFO, "updated", text, schedule_id)] if names else []


def occurrence_events(schedule: Schedule, decision: Decision, live: int, mailing_id: int) -> list[Event]:
    """Return the events of what came of a schedule that was due.

    `live` is a mailing of it that was not over, `mailing_id` the one that was made; 0 for none.
    """
    name, events = _named(schedule.id, schedule.definition.title), []
    if decision.missed is not None:
        text = f"{name} missed occurrences from {_shown(decision.missed)} on, which are not made up for."
        events.append(_of_occurrence(Level.WARNING, "missed", text, schedule.id, decision.missed))
    if decision.skipped is not None:
        text = f"{name} made no mailing for {_shown(decision.skipped)}: {_why_skipped(decision, live)}."
        events.append(_of_occurrence(Level.WARNING, "skipped", text, schedule.id, decision.skipped))
    if decision.waiting_at is not None and decision.waiting_at != schedule.waiting_at:
        text = f"{name} makes the mailing of {_shown(decision.waiting_at)} when mailing {live} is over."
        events.append(_of_occurrence(Level.INFO, "waiting", text, schedule.id, decision.waiting_at))
    if decision.make is not None and mailing_id:
        text = f"{name} made the mailing for {_shown(decision.make)}."
        events.append(_of_occurrence(Level.INFO, "ran", text, schedule.id, decision.make, mailing_id))
    if decision.next_at is None and schedule.next_at is not None:
        events.append(_event(Level.INFO, "ended", f"{name} has come to its end.", schedule.id))
    return events


def _why_skipped(decision: Decision, live: int) -> str:
    if decision.make is not None or decision.waiting_at is not None:
        return "the next occurrence came while it waited"
    return f"mailing {live} is not over" if live else "its end passed while it waited"


def _named(schedule_id: int, title: str) -> str:
    return f"Schedule {schedule_id}{f' {title[:80]!r}' if title else ''}"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _event(level: Level, what: str, text: str, schedule_id: int, mailing_id: int = 0) -> Event:
    return Event(level, f"schedule.{what}", text, mailing_id, details={"schedule_id": str(schedule_id)})


def _of_occurrence(
    level: Level, what: str, text: str, schedule_id: int, occurrence: datetime, mailing_id: int = 0
) -> Event:
    details = {"schedule_id": str(schedule_id), "occurrence_time": occurrence.isoformat()}
    return Event(level, f"schedule.{what}", text, mailing_id, details=details)
