"""One random schedule: a world, replicas, faults and actors, all drawn from a seed.

    run(seed) -> Report

For a while everything goes wrong that can; then faults and actors cease, and everything must
come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from unittest.mock import patch

from dispatcher.dispatcher import Dispatcher
from dispatcher.leases import Lease
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.quotas import day_limit
from dispatcher.model.settings import DispatchSettings
from dispatcher.model.states import AudienceMode, MailingState, Status
from dispatcher.rate_limiter import LATE
from tests.simulation.actors import Actors
from tests.simulation.database import Database
from tests.simulation.endpoint import MISHAPS, Habits, ModelEndpoint, ModelSender
from tests.simulation.promises import Promises
from tests.simulation.remote import Network, RemoteDatabase
from tests.simulation.world import ProcessClock, ProcessLoop, World, at

TIMEOUT = 1.0
"""Seconds that a request may take."""

PATIENCE = 400.0
"""Seconds within which everything must have come to rest once nothing is wrong any more."""


@dataclass
class Report:
    """What came of a schedule."""

    seed: int
    broken: list[str]
    trace: list[str]
    requests: int
    ended_at: float

    def __str__(self) -> str:
        lines = "\n".join(self.trace[-80:])
        return f"seed {self.seed} breaks its promises:\n" + "\n".join(self.broken[:5]) + f"\n\n{lines}"


class Replica:
    """A place where a dispatcher runs, again and again."""

    def __init__(self, number: int, schedule: Schedule) -> None:
        self._number = number
        self._schedule = schedule
        self._lives = 0
        self.start()

    def start(self) -> None:
        """Begin a new life: a process of a new name that knows nothing."""
        schedule, world = self._schedule, self._schedule.world
        self._lives += 1
        self.name = f"replica {self._number}.{self._lives}"
        self.loop = ProcessLoop(world)  # type: ignore[abstract]  # the rest of asyncio is not called
        remote = RemoteDatabase(world, schedule.database, schedule.network, schedule.promises, self.loop, self.name)
        sender = ModelSender(world, schedule.endpoint, schedule.promises, self.loop, self.name, TIMEOUT)
        endpoint = Endpoint(
            "default",
            "http://model/",
            "",
            total_timeout=TIMEOUT,
            max_concurrency=schedule.most,
            day_limit=day_limit(schedule.promises.endpoint_quota, ""),
        )
        clock = ProcessClock(world, world.random.random() * 1000.0)
        self.dispatcher: Dispatcher
        self.task = self.loop.start(self._live(remote, endpoint, sender, clock, Random(world.random.random())))
        world.tell(self.name, "starts")

    async def _live(
        self, remote: RemoteDatabase, endpoint: Endpoint, sender: ModelSender, clock: ProcessClock, random: Random
    ) -> None:
        settings = DispatchSettings(poll_max=2.0, recheck_min=0.2, recheck_max=3.0, lease=self._schedule.lease)
        self.dispatcher = Dispatcher(remote.ports, [(endpoint, sender)], settings, clock, random)
        await self.dispatcher.run()

    def crash(self) -> None:
        """End this life at once, if it is not over yet."""
        if self.loop.is_closed():
            return
        self._schedule.world.tell(self.name, "crashes")
        self._schedule.bury(self)

    def freeze(self, seconds: float) -> None:
        """Let the process miss everything for so long."""
        world = self._schedule.world
        world.tell(self.name, f"freezes for {seconds:.3f} s")
        self.loop.frozen_until = max(self.loop.frozen_until, world.now + seconds)
        self._schedule.promises.thaws[self.name] = at(self.loop.frozen_until)

    def hint(self) -> None:
        """Let a notification arrive."""
        if hasattr(self, "dispatcher"):
            self.loop.call_soon(self.dispatcher.hint)


class Schedule:
    """Everything that is drawn from a seed; with `timed` also timetables and quotas, and a clock that is set."""

    def __init__(self, seed: int, timed: bool = False) -> None:
        self.world = world = World(seed)
        self.seed = seed
        random = world.random
        self.database = Database(world, random.choice([1, 3, 8, 500]))
        self.promises = Promises(world, self.database)
        self.most = random.choice([1, 3, 16])
        self.lease = random.choice([8.0, 20.0])
        self.network = Network(
            least=0.0005, most=random.choice([0.002, 0.02, 0.2]), slow=random.choice([0.0, 0.02]), lost=0.0
        )
        mishaps = random.sample(MISHAPS, random.randint(0, 4))
        self.habits = Habits(
            {mishap: random.choice([0.02, 0.1, 0.3]) for mishap in mishaps},
            latency=random.choice([0.01, 0.2, 0.9]),
            connecting=random.choice([0.0, 0.0, 0.8]),
        )
        if self.network.most < 0.1 and not self.network.slow and not self.habits.connecting:
            self.promises.clock_error = 2 * self.network.most + LATE
        self.endpoint = ModelEndpoint(world, self.habits)
        self.timed = timed
        if timed:
            self.promises.clock_error = None
            self.promises.endpoint_quota = random.choice([0, 0, 4, 12])
        self.actors = Actors(world, self.database, self.promises, timed)
        self.actors.add_clients(random.randint(5, 40), random.choice([0.0, 0.0, 0.4]))
        self._graves: list[Replica] = []
        self.replicas = [Replica(n, self) for n in range(1, random.choice([1, 1, 2, 3]) + 1)]
        self._trouble(random.choice([6.0, 12.0, 25.0]))

    def bury(self, replica: Replica) -> None:
        """Stop a life for ever and begin another one a little later."""
        self._graves.append(replica)
        replica.loop.kill()
        self.world.after(self.world.delay(0.01, 12.0), replica.start)

    def _trouble(self, seconds: float) -> None:
        """Draw what goes wrong within so many seconds, and when."""
        world, random = self.world, self.world.random
        self.troubled_until = seconds
        world.after(0.0, self.actors.create_mailing)
        for _ in range(random.choice([0, 4, 12])):
            world.after(random.random() * seconds, self._act)
        if world.chance(0.3):
            for _ in range(random.randint(1, 3)):
                world.after(random.random() * seconds, lambda: self._some().crash())
        if world.chance(0.3):
            for _ in range(random.randint(1, 4)):
                world.after(random.random() * seconds, self._something_freezes)
        if world.chance(0.4):
            self.network.lost = random.choice([0.01, 0.05, 0.2])
        if world.chance(0.3):
            world.after(random.random() * seconds, self._database_goes)
        if world.chance(0.3):
            world.after(random.random() * seconds, self._endpoint_turns)
        if self.timed and world.chance(0.5):
            for _ in range(random.randint(1, 2)):
                world.after(random.random() * seconds, self._clock_is_set)
        world.after(seconds, self._calm)

    def _clock_is_set(self) -> None:
        """As heartbeats notice after a while."""
        world = self.world
        world.set_clock(world.random.choice([-1.0, 1.0]) * world.delay(0.5, 60.0))
        for replica in self.replicas:
            world.after(world.random.random() * 5.0, replica.hint)

    def _something_freezes(self) -> None:
        """For a moment, or for longer than a lease."""
        random = self.world.random
        self._some().freeze(random.choice([self.world.delay(0.01, 3.0), 2.0 + random.random() * 1.5 * self.lease]))

    def _some(self) -> Replica:
        return self.world.random.choice(self.replicas)

    def _act(self) -> None:
        self.actors.act()
        for replica in self.replicas:
            if self.world.chance(0.7):
                self.world.after(self.world.delay(0.0, 0.1), replica.hint)

    def _database_goes(self) -> None:
        """For all or for one, and as like as not just when an actor stops or changes something."""
        world, network = self.world, self.network
        network.away_until = world.now + world.delay(0.2, 15.0)
        network.only = self._some().name if world.chance(0.5) else None
        world.tell("the database is away until", network.away_until, "for", network.only or "all")
        if world.chance(0.7):
            act = world.random.choice([self.actors.pause, self.actors.cancel, self.actors.update_text])
            world.after(world.delay(0.0, 0.5), lambda: self._act_unless_calm(act))

    def _act_unless_calm(self, act: Callable[[], None]) -> None:
        """Act while things still go wrong: what is paused after that stays so for ever."""
        if self.world.now < self.troubled_until:
            act()

    def _endpoint_turns(self) -> None:
        self.habits.mood = self.world.random.choice(["away", "busy", "locked", "broken", "hanging"])
        self.world.tell("the endpoint is", self.habits.mood)
        self.world.after(self.world.delay(0.2, 10.0), self._endpoint_recovers)

    def _endpoint_recovers(self) -> None:
        self.habits.mood = "up"
        self.world.tell("the endpoint is up")

    def _calm(self) -> None:
        self.world.tell("calm")
        self.network.lost = self.network.slow = self.network.away_until = 0.0
        self.habits.mishaps.clear()
        self.actors.resume_all()

    def run(self) -> Report:
        """Let it happen, until everything is at rest or something is broken."""
        self.world.run(self.troubled_until, lambda: bool(self.promises.broken))
        if not self.promises.broken:
            patience = 3 * PATIENCE if self.timed else PATIENCE
            self.world.run(self.troubled_until + patience, lambda: bool(self.promises.broken) or self._is_at_rest())
        if not self.promises.broken:
            self._check_processes()
            self.promises.audit()
        return Report(
            self.seed,
            self.promises.broken,
            self.world.trace,
            sum(map(len, self.promises.requests.values())),
            self.world.now,
        )

    def _is_at_rest(self) -> bool:
        database = self.database
        return (
            not any(message.status is Status.PENDING for message in database.messages.values())
            and not database.batches
            and all(self._is_finished(mailing.state, mailing.audience) for mailing in database.mailings.values())
            and all(
                expansion.finished or database.mailings[expansion.mailing_id].state is MailingState.CANCELLED
                for expansion in database.expansions.values()
            )
        )

    def _is_finished(self, state: MailingState, audience: AudienceMode) -> bool:
        return state in (MailingState.COMPLETED, MailingState.CANCELLED) or (
            state is MailingState.RUNNING and audience is AudienceMode.OPEN
        )

    def _check_processes(self) -> None:
        for replica in self.replicas:
            for error in replica.loop.errors:
                self.promises.breaks("a process failed:", replica.name, error)
            if replica.task.done():
                self.promises.breaks("a dispatcher ended by itself:", replica.name)
        if not self._is_at_rest():
            self.promises.breaks("it never comes to rest:", list(self.database.mailings.values()))


def run(seed: int, timed: bool = False) -> Report:
    """Run the schedule of a seed, always in the same way; with `timed` one with timetables and quotas.

    The dispatcher keeps its leases in a set, whose order would otherwise be that of addresses.
    """
    with patch.object(Lease, "__hash__", lambda lease: hash((lease.batch.no, lease.batch.fence))):
        return Schedule(seed, timed).run()


__all__ = ["Report", "run"]
