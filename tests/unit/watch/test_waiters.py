"""Callers that wait for the same answer: all get it, and those who leave are left out."""

from __future__ import annotations

import asyncio

import pytest

from server.watch.waiters import Waiters


async def waiting(waiters: Waiters[int], count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(waiters.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    assert len(waiters) == count
    return tasks


async def test_all_who_wait_get_the_answer_and_later_callers_the_next() -> None:
    waiters: Waiters[int] = Waiters()
    tasks = await waiting(waiters, 3)
    waiters.answer(1)
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert len(waiters) == 0
    (later,) = await waiting(waiters, 1)
    waiters.answer(2)
    assert await later == 2


async def test_each_waiter_gets_a_failure_of_its_own() -> None:
    """Fails when one exception is raised to all: each raise would add to its traceback."""
    waiters: Waiters[int] = Waiters()
    tasks = await waiting(waiters, 2)
    waiters.fail(lambda: ValueError("away"))
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert (str(first), str(second)) == ("away", "away")
    assert first is not second


async def test_a_waiter_that_is_cancelled_leaves_the_others_waiting() -> None:
    waiters: Waiters[int] = Waiters()
    first, second = await waiting(waiters, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(waiters) == 1
    waiters.answer(1)
    assert await second == 1


async def test_only_so_many_are_answered_in_one_turn_of_the_loop() -> None:
    waiters: Waiters[int] = Waiters()
    tasks = await waiting(waiters, 5)
    waiters.answer(1, at_once=2)
    answered = []
    for _ in range(4):
        await asyncio.sleep(0)
        answered.append(sum(task.done() for task in tasks))
    assert answered == [2, 4, 5, 5]


async def test_a_wait_that_takes_too_long_ends_with_something_else() -> None:
    waiters: Waiters[int] = Waiters()
    assert await waiters.wait_for(0.0, lambda: 7) == 7
    assert len(waiters) == 0
