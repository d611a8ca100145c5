"""Polling slows down while nothing is found, and hints and work speed it up."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from dispatcher.poll_backoff import LoopClock, PollBackoff


class ModelClock:
    """Remembers how long it was asked to wait, and never does."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return sum(self.waits)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)


async def test_the_wait_doubles_up_to_its_ceiling() -> None:
    poll_backoff = PollBackoff(clock := ModelClock(), 0.01, 1.0)
    for _ in range(9):
        assert not await poll_backoff.wait(None)
    assert clock.waits == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert poll_backoff.reason == "backed off"


async def test_it_does_not_sleep_past_the_next_due_thing() -> None:
    poll_backoff = PollBackoff(clock := ModelClock(), 0.01, 8.0)
    for _ in range(8):
        await poll_backoff.wait(None)
    await poll_backoff.wait(0.3)
    assert clock.waits[-1] == 0.3
    assert poll_backoff.reason == "next due"


async def test_a_hint_ends_the_wait_and_begins_the_backoff_anew() -> None:
    poll_backoff = PollBackoff(clock := ModelClock(), 0.01, 1.0)
    for _ in range(6):
        await poll_backoff.wait(None)
    poll_backoff.hint()
    assert await poll_backoff.wait(None)
    await poll_backoff.wait(None)
    assert clock.waits[-1] == 0.01


async def test_work_begins_the_backoff_anew() -> None:
    poll_backoff = PollBackoff(clock := ModelClock(), 0.01, 1.0)
    for _ in range(6):
        await poll_backoff.wait(None)
    poll_backoff.reset()
    await poll_backoff.wait(None)
    assert clock.waits[-1] == 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the monotonic clock goes on by itself, or nothing does")
def test_the_clock_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended process would otherwise believe that its leases still hold. Fails with time.monotonic()."""
    suspended = 3600.0
    read = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: read(clock) + suspended * (clock == time.CLOCK_BOOTTIME))
    assert LoopClock().monotonic() > time.monotonic() + suspended / 2
