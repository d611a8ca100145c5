"""Refusals that speak of us: equal ones in a row, with no success between."""

from __future__ import annotations

import pytest

from dispatcher.model.states import ErrorClass, Suspension
from dispatcher.refusals import CREDENTIALS_RUN, RUN, Refusal, Refusals

EXPIRED = Refusal(ErrorClass.CREDENTIALS, 401, None)
MISSING = Refusal(ErrorClass.REFUSED, 404, None)
BLOCKED = Refusal(ErrorClass.REJECTED, 200, 7)
BROKEN = Refusal(ErrorClass.SERVER, 500, None)


def observed(refusals: Refusals, *answers: Refusal) -> list[Suspension]:
    return [refusals.observe(100.0 + n, answer, n) for n, answer in enumerate(answers)]


def test_a_few_refused_credentials_suspend_at_once() -> None:
    found = observed(Refusals(), *[EXPIRED] * CREDENTIALS_RUN)
    assert found == [Suspension.NONE] * (CREDENTIALS_RUN - 1) + [Suspension.CREDENTIALS]


@pytest.mark.parametrize(
    ("kind", "suspension"),
    [
        (MISSING, Suspension.NOT_FOUND),
        (Refusal(ErrorClass.REFUSED, 405, 3), Suspension.NOT_FOUND),
        (BLOCKED, Suspension.REFUSES_ALL),
        (Refusal(ErrorClass.REDIRECT, 301, None), Suspension.REFUSES_ALL),
    ],
)
def test_nearly_all_of_the_last_answers_alike_suspend(kind: Refusal, suspension: Suspension) -> None:
    refusals = Refusals()
    others = observed(refusals, BROKEN, BROKEN)
    found = observed(refusals, *[kind] * (RUN - 2))
    assert others + found == [Suspension.NONE] * (RUN - 1) + [suspension]
    assert refusals.kind == kind


def test_a_success_between_begins_anew() -> None:
    refusals = Refusals()
    for kind, run in ((EXPIRED, CREDENTIALS_RUN), (MISSING, RUN)):
        for _ in range(3):
            assert not any(observed(refusals, *[kind] * (run - 1)))
            refusals.succeeded()


def test_one_message_that_is_forbidden_again_and_again_suspends_nothing() -> None:
    refusals, forbidden = Refusals(), Refusal(ErrorClass.CREDENTIALS, 403, None)
    assert not any(refusals.observe(100.0, forbidden, 7) for _ in range(RUN))
    found = [refusals.observe(101.0, forbidden, message) for message in (8, 9)]
    assert found == [Suspension.NONE, Suspension.CREDENTIALS]


def test_different_refusals_and_failures_suspend_nothing() -> None:
    assert not any(observed(Refusals(), *[MISSING, BLOCKED] * 100))
    assert not any(observed(Refusals(), *[BROKEN] * 100))


def test_a_probe_that_is_refused_in_the_same_way_changes_nothing() -> None:
    refusals = Refusals()
    observed(refusals, *[MISSING] * RUN)
    assert refusals.persists(Suspension.NOT_FOUND, MISSING)
    assert refusals.persists(Suspension.NOT_FOUND, BROKEN)
    assert not refusals.persists(Suspension.NOT_FOUND, BLOCKED)
    assert refusals.persists(Suspension.CREDENTIALS, EXPIRED)
    assert not refusals.persists(Suspension.CREDENTIALS, MISSING)
    assert Refusals().persists(Suspension.NOT_FOUND, BLOCKED), "what suspended another replica is not known here"


def test_a_false_alarm_doubles_what_it_takes() -> None:
    refusals = Refusals()
    observed(refusals, *[MISSING] * RUN)
    refusals.healed(Suspension.NOT_FOUND)
    assert observed(refusals, *[MISSING] * 2 * RUN) == [Suspension.NONE] * (2 * RUN - 1) + [Suspension.NOT_FOUND]
