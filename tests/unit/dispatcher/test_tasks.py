"""Runs that callers share, and waits: who waits, who leaves, and what a failure does."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dispatcher.tasks import CachedRead, SingleFlight, cancel, happens


class Work:
    """Counts its runs; each one says that it began, and ends when it is let go."""

    def __init__(self) -> None:
        self.keys: list[tuple[object, ...]] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self, *key: object) -> int:
        self.keys.append(key)
        number = len(self.keys)
        self.began.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return number

    def fail_with(self, failure: Exception | None) -> None:
        self.failure = failure
        self.go.set()


async def begun(*calls: Any) -> list[asyncio.Task[Any]]:
    """Return the tasks of these calls when each of them has taken its first step."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_calls_at_the_same_time_share_one_run() -> None:
    work = Work()
    read = SingleFlight(work, "read")
    tasks = await begun(read(), read(), read())
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert await read() == 2


async def test_calls_with_other_arguments_run_by_themselves() -> None:
    work = Work()
    read = SingleFlight(work, "read")
    tasks = await begun(read(1), read(2), read(1))
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 2, 1]
    assert work.keys == [(1,), (2,)]


async def test_a_caller_that_is_cancelled_leaves_the_run_to_the_others() -> None:
    """Fails when a waiter's cancellation reaches the run."""
    work = Work()
    read = SingleFlight(work, "read")
    first, second = await begun(read(), read())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.go.set()
    assert await second == 1


async def test_a_run_goes_on_to_its_end_when_all_callers_have_left() -> None:
    work = Work()
    read = SingleFlight(work, "read")
    (only,) = await begun(read())
    await work.began.wait()
    only.cancel()
    await asyncio.wait([only])
    (later,) = await begun(read())
    work.go.set()
    assert await later == 1


async def test_a_failure_reaches_all_who_wait_and_the_next_call_runs_anew() -> None:
    work = Work()
    read = SingleFlight(work, "read")
    tasks = await begun(read(), read())
    work.fail_with(ValueError("away"))
    assert [str(end) for end in await asyncio.gather(*tasks, return_exceptions=True)] == ["away", "away"]
    work.fail_with(None)
    assert await read() == 2


async def test_a_failure_that_nobody_waits_for_is_not_logged() -> None:
    """Fails when the run's exception is never looked at: asyncio reports such tasks as they are collected."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    work = Work()
    read = SingleFlight(work, "read")
    (only,) = await begun(read())
    await work.began.wait()
    only.cancel()
    await asyncio.wait([only])
    work.fail_with(ValueError("away"))
    for _ in range(5):  # until the run has ended, and what is called then
        await asyncio.sleep(0)
    del only  # its traceback holds the run
    gc.collect()
    assert reported == []


async def test_no_more_than_so_many_runs_are_at_work_at_once() -> None:
    work = Work()
    read = SingleFlight(work, "read", at_once=2)
    tasks = await begun(*(read(key) for key in range(5)))
    await asyncio.sleep(0)
    assert len(work.keys) == 2
    work.go.set()
    assert sorted(await asyncio.gather(*tasks)) == [1, 2, 3, 4, 5]


async def test_closing_ends_the_run_and_all_who_wait_for_it() -> None:
    work = Work()
    read = SingleFlight(work, "read")
    (only,) = await begun(read())
    await work.began.wait()
    await read.close()
    with pytest.raises(asyncio.CancelledError):
        await only
    await read.close()


async def test_a_result_is_handed_on_until_it_is_too_old() -> None:
    work = Work()
    work.go.set()
    read = CachedRead(work, "read")
    assert [await read.get(60.0), await read.get(60.0)] == [1, 1]
    assert await read.get(-1.0) == 2
    assert await read.get(60.0) == 2


async def test_a_failure_is_not_kept() -> None:
    work = Work()
    read = CachedRead(work, "read")
    work.fail_with(ValueError("away"))
    with pytest.raises(ValueError, match="away"):
        await read.get(60.0)
    work.fail_with(None)
    assert await read.get(60.0) == 2


async def test_a_read_under_way_is_shared_however_old_a_result_may_be() -> None:
    work = Work()
    read = CachedRead(work, "read")
    tasks = await begun(read.get(0.0), read.get(60.0), read.get(0.0))
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1]


async def test_tasks_are_cancelled_and_waited_for_however_they_end() -> None:
    async def ends_badly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the end")

    task = asyncio.create_task(ends_badly())
    await asyncio.sleep(0)
    await cancel(task)
    assert task.done()


async def test_an_event_is_waited_for_no_longer_than_wanted() -> None:
    event = asyncio.Event()
    assert not await happens(event, 0.001)
    event.set()
    assert await happens(event, 60.0)


@pytest.mark.parametrize("turns", range(4))
async def test_a_wait_cancelled_just_after_its_event_still_ends(turns: int) -> None:
    # A loop that waits like this would go on for ever, and its caller would wait for ever.
    event = asyncio.Event()

    async def loop() -> None:
        while True:
            await happens(event, 60.0)
            event.clear()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel(task)
    assert task.cancelled()
