"""The heart of a replica: says that it lives and how it does, and hears what is set for all.

One statement does both. It is made every second while there is work, rarely while there is
none, and at once after a hint. Each beat promises the next one, so a replica that died is
missed within seconds; one that stops in order takes its leave. Nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dispatcher.model.records import SettingOverrides
from dispatcher.ports import Clock, Replicas, StorageUnavailable
from dispatcher.replica_status import ReplicaStatus

log = logging.getLogger(__name__)

BUSY_INTERVAL = 0.75
"""Seconds between two beats while there is work: a setting holds everywhere within a second."""

IDLE_INTERVAL = 3.6
"""Seconds between two beats while there is none."""

BUSY_MARGIN, IDLE_MARGIN = 2.5, 0.5
"""Seconds that a beat may be late. A busy event loop and a busy database need more of them."""

HINTED_INTERVAL = 0.1
"""Seconds between two beats at the least, however many hints there are."""


class Heartbeat:
    """Beats for one replica. `apply_overrides` takes over other settings."""

    def __init__(
        self,
        replicas: Replicas,
        clock: Clock,
        replica_status: ReplicaStatus,
        apply_overrides: Callable[[SettingOverrides], None],
    ) -> None:
        self._replicas = replicas
        self._clock = clock
        self._replica_status = replica_status
        self._apply_overrides = apply_overrides
        self._woken = asyncio.Event()
        self._resting = False
        self._overrides: SettingOverrides | None = None

    def hint(self) -> None:
        """Note that settings may have been changed."""
        self._woken.set()

    def work(self) -> None:
        """Note that there is work."""
        if self._resting:
            self._woken.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        born = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            busy = self._replica_status.busy
            interval, margin = (BUSY_INTERVAL, BUSY_MARGIN) if busy else (IDLE_INTERVAL, IDLE_MARGIN)
            self._woken.clear()
            try:
                overrides = await self._replicas.beat(began - born, interval + margin, self._replica_status.status())
            except StorageUnavailable as error:
                log.warning("this replica cannot be seen, the database is away: %s", error)
                interval = BUSY_INTERVAL
            else:
                self._take_over(overrides)
            await self._clock.sleep(HINTED_INTERVAL)
            self._resting = not busy
            await self._clock.wait(self._woken, interval - (self._clock.monotonic() - began))

    def _take_over(self, overrides: SettingOverrides) -> None:
        if overrides != self._overrides:
            self._overrides = overrides
            self._apply_overrides(overrides)
            self._woken.set()  # so that it is soon seen that they hold

    async def leave(self) -> None:
        """Note that this replica ends."""
        try:
            await self._replicas.leave()
        except StorageUnavailable as error:
            log.warning("this replica is missed only when its next beat is overdue: %s", error)
