"""What comes of occurrences, under a clock that is moved, with crashes, outages and several replicas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from server.domain.mailings import MailingDefinition
from server.domain.recurrence import Recurrence
from server.domain.schedules import PUNCTUAL, Decision, Overlap, Schedule, ScheduleDefinition, decide

BEGIN = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def schedule(overlap: Overlap = Overlap.SKIP, catch_up: timedelta = HOUR, cron: str = "0 * * * *") -> Schedule:
    definition = ScheduleDefinition(
        MailingDefinition("Hello"), "Europe/Berlin", cron=cron, overlap=overlap, catch_up=catch_up
    )
    return Schedule(1, definition, False, definition.next_after(BEGIN), None, 0, 1, BEGIN, BEGIN)


@dataclass
class World:
    """One schedule in a database: transactions happen whole or not at all. `open` are mailings that are not over."""

    schedule: Schedule
    now: datetime = BEGIN
    open: set[datetime] = field(default_factory=set)
    made: list[datetime] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def look(self, crashes: bool) -> None:
        """A replica finds out what is due; with `crashes` it dies before it commits."""
        decision = decide(self.schedule, self.now, bool(self.open))
        if crashes:
            return
        self.schedule = replace(self.schedule, next_at=decision.next_at, waiting_at=decision.waiting_at)
        self.decisions.append(decision)
        if decision.make:
            self.made.append(decision.make)
            self.open.add(decision.make)


@given(
    st.sampled_from(Overlap),
    st.sampled_from([timedelta(0), HOUR, 5 * HOUR]),
    st.sampled_from(["0 * * * *", "*/7 * * * *", "30 2 * * *"]),
    st.lists(st.tuples(st.sampled_from([1, 30, 60, 3600, 20_000]), st.booleans(), st.booleans(), st.booleans())),
)
def test_no_occurrence_makes_two_mailings_or_disappears(
    overlap: Overlap, catch_up: timedelta, cron: str, steps: list[tuple[int, bool, bool, bool]]
) -> None:
    """Every occurrence makes a mailing, is skipped, waits, or lies before one that counted for all that were missed."""
    world = World(schedule(overlap, catch_up, cron))
    for seconds, up, crashes, ends in steps:
        world.now += timedelta(seconds=seconds)
        if ends and world.open:
            world.open.remove(min(world.open))
        for dies in (crashes, False) if up else ():
            world.look(dies)
        assert len(world.open) <= 1 or overlap is Overlap.ALLOW
    assert len(set(world.made)) == len(world.made)
    recurrence = world.schedule.definition.recurrence
    next_at = world.schedule.next_at
    assert next_at is not None
    due = list(takewhile(lambda one: one < next_at, recurrence.after(BEGIN)))
    assert set(world.made) <= set(due)
    accounted = {*world.made, *(one.skipped for one in world.decisions), world.schedule.waiting_at}
    for occurrence in set(due) - accounted:
        assert any(one.missed and one.missed <= occurrence for one in world.decisions)


@given(st.lists(st.integers(1, 60), min_size=50, max_size=300))
def test_a_service_that_runs_makes_every_mailing_of_its_schedules(pauses: list[int]) -> None:
    world = World(schedule(Overlap.ALLOW, timedelta(0), "*/3 * * * *"))
    for seconds in pauses:
        world.now += timedelta(seconds=seconds)
        world.look(crashes=False)
    due = Recurrence("*/3 * * * *", "", "Europe/Berlin").after(BEGIN)
    assert world.made == list(takewhile(lambda one: one <= world.now, due))


def test_of_several_missed_occurrences_the_latest_is_made_up_for() -> None:
    now = BEGIN + 5 * HOUR + timedelta(minutes=30)
    decision = decide(schedule(), now, live=False)
    assert decision == Decision(BEGIN + 6 * HOUR, make=BEGIN + 5 * HOUR, missed=BEGIN + HOUR)


def test_occurrences_older_than_the_catch_up_window_are_not_made_up_for() -> None:
    daily = schedule(cron="0 22 * * *")
    due = daily.next_at
    assert due is not None
    assert decide(daily, due + HOUR, live=False).make == due
    late = decide(daily, due + HOUR + timedelta(seconds=1), live=False)
    assert (late.make, late.missed, late.next_at) == (None, due, due + timedelta(hours=23))
    none = schedule(catch_up=timedelta(0), cron="0 22 * * *")
    assert decide(none, due + PUNCTUAL, live=False).make == due
    assert decide(none, due + 2 * PUNCTUAL, live=False).missed == due


def test_a_mailing_that_is_not_over_skips_the_next_one() -> None:
    now = BEGIN + HOUR
    assert decide(schedule(), now, live=True) == Decision(now + HOUR, skipped=now)
    assert decide(schedule(Overlap.ALLOW), now, live=True) == Decision(now + HOUR, make=now)


def test_the_latest_occurrence_waits_for_the_mailing_before() -> None:
    first = BEGIN + HOUR
    waiting = decide(schedule(Overlap.WAIT), first, live=True)
    assert waiting == Decision(first + HOUR, waiting_at=first)
    held = replace(schedule(Overlap.WAIT), next_at=first + HOUR, waiting_at=first)
    assert decide(held, first + timedelta(minutes=30), live=True) == Decision(first + HOUR, waiting_at=first)
    assert decide(held, first + timedelta(minutes=30), live=False) == Decision(first + HOUR, make=first)
    later = Decision(first + 2 * HOUR, waiting_at=first + HOUR, skipped=first)
    assert decide(held, first + HOUR, live=True) == later


def test_an_occurrence_that_waited_beyond_its_end_makes_nothing() -> None:
    first = BEGIN + HOUR
    held = replace(schedule(Overlap.WAIT), next_at=first + HOUR, waiting_at=first)
    ending = replace(held, definition=replace(held.definition, end_after=timedelta(minutes=10)))
    assert decide(ending, first + timedelta(minutes=10), live=False) == Decision(first + HOUR, skipped=first)
