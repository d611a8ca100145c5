"""Watches the leases at work: confirms those whose mailing is unchanged, releases the others.

A released lease puts what has not been begun back into open work, even while the endpoint hangs.
So does a message whose client was changed, for the next claim to judge anew: to opted out clients
nothing is sent, and a new phone gets it instead of the old one. Without a confirmation nothing of
a lease would start any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dispatcher.breaker_sync import BreakerSync
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.mailings import Mailing
from dispatcher.model.states import MailingState
from dispatcher.ports import Clock, StorageUnavailable, WorkQueue

REFRESH_INTERVAL = 0.25
"""Seconds between two checks of the mailings at work and of their clients."""


class LeaseWatch:
    """Watches the leases of the registry, and the breakers of the pools."""

    def __init__(
        self,
        queue: WorkQueue,
        registry: LeaseRegistry,
        pools: Mapping[str, EndpointWorkers],
        breaker_sync: BreakerSync,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._pools = pools
        self._breaker_sync = breaker_sync
        self._clock = clock

    async def run(self) -> None:
        """Release leases that ran out or whose mailing was changed, paused or ended, until cancelled."""
        while True:
            await self._clock.sleep(REFRESH_INTERVAL)
            if not self._registry.leases:
                continue
            try:
                await self._check()
            except StorageUnavailable:
                continue

    async def _check(self) -> None:
        """Confirm last: what cannot be learned of clients or of the endpoint lets nothing leave either."""
        asked = self._clock.monotonic()
        leases = list(self._registry.leases)
        mailings = await self._queue.definitions(list(self._registry.by_mailing))
        await self._withdraw_changed(leases)
        await self._breaker_sync.learn(self._pools.values())
        self._confirm(leases, mailings, asked)

    async def _withdraw_changed(self, leases: Sequence[Lease]) -> None:
        """Take out of the leases what is for clients that were changed since they were looked at."""
        numbers = await self._queue.change_numbers()
        behind: dict[tuple[int, int], list[Lease]] = defaultdict(list)
        for lease in leases:
            if lease.change_no < numbers.get(lease.batch.bucket, 0):
                behind[lease.batch.bucket, lease.change_no].append(lease)
        for (bucket, after), group in behind.items():
            clients = list({client_id for lease in group for client_id in lease.undecided()})
            changed = await self._queue.changed_clients(bucket, after, numbers[bucket], clients) if clients else []
            for lease in group:
                lease.change_no = numbers[bucket]
                if changed and lease.withdraw(set(changed)):
                    self._registry.settle_soon(lease)

    def _confirm(self, leases: list[Lease], mailings: Mapping[int, Mailing], asked: float) -> None:
        """Compare the leases with the mailings as they were when the database was `asked`."""
        now = self._clock.monotonic()
        for lease in leases:
            mailing = mailings.get(lease.mailing.id)
            if mailing is not None and not _changed(mailing, lease.mailing) and now < lease.send_until:
                lease.confirm(asked)
            elif lease.release(mailing or lease.mailing):
                self._registry.settle_soon(lease)
        for pool in self._pools.values():
            pool.start()


def _changed(now: Mailing, then: Mailing) -> bool:
    return now.version != then.version or (now.state is not then.state and now.state is not MailingState.RUNNING)
