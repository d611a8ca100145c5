"""The schedule of a preview, against every possible schedule of small cases."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model.states import Reason
from dispatcher.model.templates import parse
from dispatcher.model.texts import TextRenderer
from server.domain.clients import Client, ClientDefinition
from server.domain.previews import (
    LOOK_AHEAD,
    MAX_SAMPLE_CHARACTERS,
    Group,
    Pace,
    Waiting,
    Window,
    audience_of,
    samples_of,
    schedule,
    spans,
    strictest,
    without_texts,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def most(waiting: list[Waiting]) -> int:
    """Return the size of a maximum matching of clients and slots: what the best of all schedules sends."""
    clients = [[slot for window in one.windows for slot in window] for one in waiting for _ in range(one.count)]
    taken: dict[int, int] = {}

    def place(client: int, tried: set[int]) -> bool:
        for slot in clients[client]:
            if slot not in tried:
                tried.add(slot)
                if slot not in taken or place(taken[slot], tried):
                    taken[slot] = client
                    return True
        return False

    return sum(place(client, set()) for client in range(len(clients)))


def served(waiting: list[Waiting]) -> int:
    return sum(one.count for one in waiting) - sum(schedule(waiting).left)


@st.composite
def windows(draw: st.DrawFn, most_windows: int) -> list[range]:
    bounds = sorted(draw(st.sets(st.integers(0, 14), min_size=2, max_size=2 * most_windows)))
    return [range(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False)]


def groups(most_windows: int) -> st.SearchStrategy[list[Waiting]]:
    return st.lists(st.builds(Waiting, st.integers(1, 6), windows(most_windows)), max_size=5)


@settings(max_examples=500)
@given(groups(most_windows=1))
def test_where_each_window_opens_once_no_schedule_sends_more(waiting: list[Waiting]) -> None:
    """Fails when the earliest deadline does not go first, and when a slot is left empty."""
    assert served(waiting) == most(waiting)


@settings(max_examples=500)
@given(groups(most_windows=3))
def test_with_windows_that_open_again_the_schedule_is_nearly_optimal(waiting: list[Waiting]) -> None:
    best = most(waiting)
    # A schedule that leaves no slot empty for which somebody waits reaches half of the best at the least.
    assert best / 2 <= served(waiting) <= best


@settings(max_examples=300)
@given(groups(most_windows=3))
def test_a_schedule_keeps_to_the_windows(waiting: list[Waiting]) -> None:
    """Every group's served clients fit into its own windows, and nobody is served after the last slot."""
    outcome = schedule(waiting)
    gone = [one.count - left for one, left in zip(waiting, outcome.left, strict=True)]
    fitted = [
        Waiting(count, [range(window.start, min(window.stop, outcome.last + 1)) for window in one.windows])
        for count, one in zip(gone, waiting, strict=True)
    ]
    assert most(fitted) == sum(gone)
    assert all(left >= 0 for left in outcome.left)


def test_who_has_only_today_goes_before_who_can_be_sent_tomorrow_too() -> None:
    """The current window of the first closes earlier; the earliest current deadline would lose two clients."""
    again = Waiting(2, [range(2), range(10, 12)])
    once = Waiting(3, [range(3)])
    assert schedule([again, once]).left == [0, 0]
    assert schedule([again, once]).last == 11


def test_a_million_clients_are_no_more_work_than_one() -> None:
    outcome = schedule([Waiting(10**6, [range(10**9)]), Waiting(10**6, [range(5, 10**5)])])
    assert outcome.left == [0, 10**6 - (10**5 - 5)]
    assert schedule([Waiting(5, [Pace(START, 1e300).slots(START, START + MINUTE)])]).left == [0]
    assert schedule([]).last == -1
    assert schedule([Waiting(3, [])]).left == [3]


@pytest.mark.parametrize(
    ("rate", "seconds", "slots"),
    [
        (0.1, 1000, 100),
        (10, 1000, 10_000),
        (1 / 3, 3, 1),
        (1e-5, 60, 1),
        (2.5, 1, 3),
        (0.001, 1001, 2),
        (1 / 1200, 3600, 3),
        (3, 1, 3),
        (49, 1, 49),
    ],
)
def test_a_pace_has_a_slot_at_its_start_and_at_every_interval_from_there(
    rate: float, seconds: float, slots: int
) -> None:
    pace = Pace(START, rate)
    found = pace.slots(START, START + timedelta(seconds=seconds))
    assert found == range(slots)
    assert pace.moment(0) == START
    assert START + timedelta(seconds=(slots - 1) / rate) - pace.moment(slots - 1) < timedelta(microseconds=2)


@given(st.floats(1e-9, 1e6), st.integers(0, 10**14), st.integers(0, 10**14))
def test_spans_side_by_side_share_no_slot_and_miss_none(rate: float, one: int, other: int) -> None:
    pace, (first, second) = Pace(START, rate), sorted((timedelta(microseconds=one), timedelta(microseconds=other)))
    before, behind = pace.slots(START, START + first), pace.slots(START + first, START + second)
    assert (before.stop, behind.stop) == (behind.start, pace.slots(START, START + second).stop)


def test_spans_grow_until_the_end_or_a_year() -> None:
    assert list(spans(START, START + MINUTE)) == [(START, START + MINUTE)]
    found = list(spans(START, None))
    assert (found[0][0], found[-1][1]) == (START, START + LOOK_AHEAD)
    assert all(one[1] == next_one[0] for one, next_one in pairwise(found))
    assert len(found) < 10
    assert list(spans(START, START)) == []


def test_the_strictest_limit_holds_and_zero_is_none() -> None:
    assert (strictest(0, 0), strictest(5, 0), strictest(5, 3), strictest()) == (0, 5, 3, 0)


def group(count: int, late: Reason = Reason.NONE, reason: Reason = Reason.NONE) -> Group:
    return Group(("UTC", time(9), MINUTE), reason, count, START + MINUTE, late)


def test_who_is_left_out_has_one_reason() -> None:
    late = Reason.WINDOW_NOT_BEFORE_END
    found = audience_of(
        [
            group(1),
            group(2, late),
            group(4, Reason.NONE, Reason.OPTED_OUT),
            group(8, late, Reason.OPTED_OUT),
            group(16, Reason.NONE, Reason.FREQUENCY_CAP),
            group(32, late, Reason.FREQUENCY_CAP),
            group(64, Reason.TOO_LATE, Reason.FREQUENCY_CAP),
        ]
    )
    assert found.size == 1
    assert found.excluded == {
        Reason.OPTED_OUT: 12,
        Reason.WINDOW_NOT_BEFORE_END: 34,
        Reason.FREQUENCY_CAP: 16,
        Reason.TOO_LATE: 64,
    }


def renderer(text: str) -> TextRenderer:
    return TextRenderer(parse(text), 10_000)


def client(number: int, **attributes: str) -> tuple[Client, datetime]:
    definition = ClientDefinition("7926123456" + str(number), "UTC", tag="gold", attributes=attributes)
    return Client(number, definition, 1, START, START), START


def test_samples_are_the_texts_of_their_clients() -> None:
    [one, two] = samples_of(renderer("{attributes.name|friend}, {tag} €"), [client(1, name="Анна"), client(2)], 2)
    assert (one.text, one.length.characters, one.length.encoding.name) == ("Анна, gold €", 12, "UCS2")
    assert (two.text, two.length.segments, two.length.encoding.name) == ("friend, gold €", 1, "GSM7")
    assert (two.client_id, two.phone, two.due_at) == (2, "79261234562", START)


def test_samples_are_no_more_text_than_an_answer_bears() -> None:
    clients = [client(number, long="x" * (MAX_SAMPLE_CHARACTERS // 2)) for number in range(1, 5)]
    assert len(samples_of(renderer("{attributes.long}"), clients, 50)) == 2
    huge = client(1, long="x" * (MAX_SAMPLE_CHARACTERS + 1))
    assert len(samples_of(renderer("{attributes.long}"), [huge, huge], 50)) == 1


def test_clients_without_a_text_are_left_out_apart() -> None:
    early, late = (START, START + timedelta(hours=9))
    groups = [
        Group(("a",), Reason.NONE, 5, early),
        Group(("a",), Reason.FREQUENCY_CAP, 2, early),
        Group(("b",), Reason.NONE, 3, late, Reason.WINDOW_NOT_BEFORE_END),
    ]
    unsuited: dict[tuple[Window, Reason, Reason], int] = {
        (("a",), Reason.NONE, Reason.EMPTY_TEXT): 4,
        (("a",), Reason.FREQUENCY_CAP, Reason.EMPTY_TEXT): 1,
        (("b",), Reason.NONE, Reason.TOO_LONG): 3,
    }
    found = audience_of(without_texts(groups, unsuited))
    assert (found.size, found.excluded) == (1, {Reason.FREQUENCY_CAP: 1, Reason.EMPTY_TEXT: 5, Reason.TOO_LONG: 3})


def test_samples_pass_over_texts_that_are_not_sent() -> None:
    samples = samples_of(renderer("{attributes.name}"), [client(1), client(2, name="Bo"), client(3, name="Al")], 1)
    assert [one.client_id for one in samples] == [2]
