"""Deadlines of tasks: who is late is cancelled once, and who is cancelled by others is not taken for late."""

from __future__ import annotations

import asyncio

import pytest

from server.api.deadlines import Deadlines, current_task


async def held(deadlines: Deadlines, seconds: float) -> str:
    """Return whether the deadline or something else ended a wait of so many seconds."""
    task = current_task()
    deadlines.begin(task)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if deadlines.passed(task):
            return "late"
        raise
    finally:
        deadlines.end(task)
    return "in time"


async def test_who_is_late_is_cancelled_and_others_are_not() -> None:
    deadlines = Deadlines(0.1)
    ends = asyncio.gather(held(deadlines, 60), held(deadlines, 0.001), held(deadlines, 60))
    assert [*await asyncio.wait_for(ends, 20)] == ["late", "in time", "late"]
    assert await asyncio.wait_for(held(deadlines, 60), 20) == "late"


async def test_a_cancellation_from_elsewhere_has_the_last_word() -> None:
    """Fails when every cancellation is taken for the deadline's, or a late task can only be late."""
    deadlines = Deadlines(0.05)
    waiting = asyncio.create_task(held(deadlines, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def cancelled_twice() -> None:
        task = current_task()
        deadlines.begin(task)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task.cancel()
            if deadlines.passed(task):
                return
            raise
        finally:
            deadlines.end(task)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(cancelled_twice()), 20)
