"""Makes mailings by the clock: looks when the next schedule is due, sleeps until then, makes what is due.

Any number of replicas do so at once: the one that locks a schedule first makes its mailing. The database's clock says
what is due. While nothing is, a replica looks once in LONGEST_SLEEP; `hint` makes it look at once.
"""

from __future__ import annotations

import asyncio
import logging

from server.domain.errors import DatabaseUnavailable
from server.storage.schedules import ScheduleQueue

LONGEST_SLEEP = 60.0
"""Seconds between two looks: as late may another replica find out about a change."""

WAITING_SLEEP = 5.0
"""Seconds between two looks while an occurrence waits for the end of a mailing."""

BUSY = 0.1
"""The same while another replica has what is due."""

AWAY = 1.0
"""Seconds until the next try when the database is away."""

BROKEN = 60.0
"""Seconds until a schedule that could not be served is tried again."""

log = logging.getLogger(__name__)


class MailingMaker:
    """Makes the mailings of all schedules for this replica. `made` is how many it made."""

    def __init__(self, queue: ScheduleQueue) -> None:
        self._queue = queue
        self._hinted = asyncio.Event()
        self._broken: dict[int, float] = {}
        self.made = 0

    def hint(self) -> None:
        """Ask for what is due now."""
        self._hinted.set()

    async def run(self) -> None:
        """Make mailings until cancelled."""
        while True:
            self._hinted.clear()
            try:
                wait = await self.poll()
            except DatabaseUnavailable:
                wait = AWAY
            except Exception:
                log.exception("schedules could not be read")
                wait = BROKEN
            try:
                async with asyncio.timeout(wait):
                    await self._hinted.wait()
            except TimeoutError:
                continue

    async def poll(self) -> float:
        """Make what is due and return in how many seconds to look again. Raise DatabaseUnavailable."""
        due = await self._queue.due()
        now = asyncio.get_running_loop().time()
        self._broken = {one: until for one, until in self._broken.items() if until > now}
        taken = [await self._serve(one, now) for one in dict.fromkeys(due.ids) if one not in self._broken]
        if taken:
            return 0.0 if any(taken) else BUSY
        longest = WAITING_SLEEP if due.waits else LONGEST_SLEEP
        return longest if due.next_in is None else min(max(due.next_in, 0.0), longest)

    async def _serve(self, schedule_id: int, now: float) -> bool:
        """Do what comes of a schedule; return False when another replica does."""
        try:
            made = await self._queue.run(schedule_id)
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("schedule %d could not be served", schedule_id)
            self._broken[schedule_id] = now + BROKEN
            return True
        self.made += bool(made)
        return made is not None
