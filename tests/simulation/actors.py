"""What callers of the API do to a mailing and its clients, at random moments.

Each act commits at one moment, as the transactions of the stores do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from dispatcher.model.mailings import RetryPolicy
from dispatcher.model.states import STATE_TRANSITIONS, AudienceMode, MailingState, Semantics, Status
from tests.simulation.database import Database
from tests.simulation.promises import Promises
from tests.simulation.rows import DAY, Client, MailingRow
from tests.simulation.stores import delete_client, retry
from tests.simulation.timetables import Timetable
from tests.simulation.world import EPOCH, World

TAGS = ("red", "blue")
QUOTAS = (0, 0, 0, 2, 9)
AHEAD = (0.0, 0.0, -7.5, 12.5)
"""How far clocks of clients are ahead, where mailings have timetables."""

SLOT = 2.5
"""Windows, hours and clocks are multiples of it there: what is open at the same time is so for long enough."""
TEXTS = ("Hello", "Hello {phone}", "Good bye", "{phone}, come back")


class Actors:
    """Acts on the model database; `act` draws what happens. With `timed` mailings have timetables, too."""

    def __init__(self, world: World, database: Database, promises: Promises, timed: bool = False) -> None:
        self._timed = timed
        self._world = world
        self._database = database
        self._promises = promises
        self._acts = [
            (3, self.create_mailing),
            (2, self.update_text),
            (2, self.move_end),
            (1, self.change_quota),
            (3, self.pause),
            (4, self.resume),
            (1, self.cancel),
            (2, self.retry),
            (3, self.opt_out),
            (2, self.delete_client),
            (2, self.add_client),
            (1, self.change_tag),
            (1, self.change_phone),
            *([(4, self.change_timetable)] if timed else []),
        ]

    def act(self) -> None:
        """Do one thing."""
        chosen = self._world.random.choices([act for _, act in self._acts], [weight for weight, _ in self._acts])
        chosen[0]()

    def add_clients(self, count: int, windows: float) -> None:
        """Add the clients that are there from the beginning; `windows` is how many of them have one."""
        for _ in range(count):
            self._add(self._world.chance(windows))

    def _add(self, window: bool) -> Client:
        random, clients = self._world.random, self._database.clients
        id_ = len(clients) + len(self._promises.touched) + 2
        while id_ in clients:
            id_ += 1
        client = Client(id_, str(7_000_000 + id_), random.choice(TAGS), created_at=self._world.now_at)
        if window:
            client.opens = round(random.random() * client.day, 3)
            client.length = random.choice([2.0, 8.0, 20.0, client.day])
        if self._timed:
            client.ahead = random.choice(AHEAD)
            client.opens = client.opens and round(client.opens / SLOT) * SLOT % client.day
            client.length = max(round(client.length / SLOT), 2) * SLOT
            client.created_at -= timedelta(days=1)  # whatever the clock is set to
        clients[id_] = client
        self._database.changed(client)
        return client

    def create_mailing(self) -> None:
        random, now = self._world.random, self._world.now_at
        starts_at = now + timedelta(seconds=random.choice([0.0, 0.0, self._world.delay(0.1, 8.0)]))
        length = random.choice([None, None, self._world.delay(0.5, 40.0)])
        mailing = MailingRow(
            id=len(self._database.mailings) + 1,
            text=random.choice(TEXTS),
            tag=random.choice(TAGS),
            starts_at=starts_at,
            ends_at=None if length is None else starts_at + timedelta(seconds=length),
            state=MailingState.SCHEDULED if starts_at > now else MailingState.RUNNING,
            audience=random.choice(list(AudienceMode)),
            semantics=random.choice(list(Semantics)),
            priority=random.choice([0, 0, 1]),
            retry=RetryPolicy(random.randint(1, 5), random.choice([0.1, 1.0]), random.choice([1.0, 5.0])),
            max_rate=random.choice([0.0, 0.0, 0.0, 2.0, 20.0]),
            max_per_day=random.choice(QUOTAS),
        )
        if self._timed:
            self._draw_timetable(mailing)
        mailing.quotas.append((self._world.true_at, mailing.max_per_day))
        self._database.mailings[mailing.id] = mailing
        self._database.define(mailing)
        if mailing.state is MailingState.RUNNING:
            self._database.begin_expansion(mailing, now)
        self._world.tell("actors create", mailing)

    def _draw_timetable(self, mailing: MailingRow) -> None:
        """Give a new mailing a timetable; with a local start it waits for the first clock that shows it."""
        mailing.timetable = self._timetable(mailing.starts_at)
        mailing.timetables.append((self._world.true_at, mailing.timetable))
        if (local_start := mailing.timetable.local_start) is not None:
            mailing.state = MailingState.SCHEDULED
            mailing.starts_at = EPOCH + timedelta(seconds=local_start - max(AHEAD))
            if mailing.ends_at is not None:
                mailing.ends_at += timedelta(seconds=40.0)

    def _timetable(self, starts_at: datetime | None) -> Timetable:
        """Draw a timetable; one for a mailing that has begun keeps its start."""
        random, today = self._world.random, round((self._world.now_at - EPOCH).total_seconds() / DAY)
        slots = range(round(DAY / SLOT))
        hours = [
            (random.choice(slots) * SLOT, random.choice([5.0, 15.0, 25.0])) for _ in range(random.choice([0, 1, 1, 2]))
        ]
        holidays = random.sample(range(today - 1, today + 3), random.choice([0, 0, 1, 2]))
        local_start = None
        if starts_at is not None and self._world.chance(0.3):
            local_start = round((starts_at - EPOCH).total_seconds() + random.uniform(-10.0, 15.0), 3)
        skip_after = random.choice([None, None, 3.0, 20.0, 60.0])
        return Timetable(tuple(hours), frozenset(holidays), local_start, skip_after)

    def change_timetable(self) -> None:
        """Change all of it but for the local start, as UpdateMailing does."""
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            timetable = replace(self._timetable(None), local_start=mailing.timetable.local_start)
            self._database.change_timetable(mailing, timetable, self._world.now_at)
            mailing.timetables.append((self._world.true_at, timetable))
            self._world.tell("actors change", mailing.id, timetable)

    def _mailing(self, *states: MailingState) -> MailingRow | None:
        found = [mailing for mailing in self._database.mailings.values() if mailing.state in states]
        return self._world.random.choice(found) if found else None

    def update_text(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            mailing.text = self._world.random.choice(TEXTS)
            self._changed(mailing, "text")

    def change_quota(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            mailing.max_per_day = self._world.random.choice(QUOTAS)
            mailing.quotas.append((self._world.true_at, mailing.max_per_day))
            self._changed(mailing, f"quota {mailing.max_per_day}")

    def move_end(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            begin = max(self._world.now_at, mailing.starts_at)
            mailing.ends_at = begin + timedelta(seconds=self._world.delay(0.01, 30.0))
            self._changed(mailing, f"end {mailing.ends_at}")

    def _changed(self, mailing: MailingRow, what: str) -> None:
        mailing.version += 1
        self._database.define(mailing)
        self._world.tell("actors change", mailing.id, what)

    def _move(self, mailing: MailingRow, to: MailingState) -> None:
        assert to in STATE_TRANSITIONS[mailing.state]
        mailing.state = to
        mailing.version += 1
        mailing.stopped_at = None if to is MailingState.RUNNING else self._world.true_at
        self._world.tell("actors move", mailing.id, "to", to.name)

    def pause(self) -> None:
        if mailing := self._mailing(MailingState.RUNNING):
            self._move(mailing, MailingState.PAUSED)

    def resume(self) -> None:
        if mailing := self._mailing(MailingState.PAUSED):
            self._move(mailing, MailingState.RUNNING)

    def cancel(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            self._move(mailing, MailingState.CANCELLED)

    def retry(self) -> None:
        """Put messages back to PENDING, as RetryMailing does."""
        mailing = self._mailing(MailingState.RUNNING, MailingState.PAUSED, MailingState.COMPLETED)
        if mailing is None or mailing.is_over(self._world.now_at):
            return
        count = retry(self._database, mailing, (Status.FAILED, Status.EXPIRED, Status.UNKNOWN), self._world.now_at)
        self._world.tell("actors retry", mailing.id, count)

    def _client(self) -> Client | None:
        clients = list(self._database.clients.values())
        return self._world.random.choice(clients) if clients else None

    def opt_out(self) -> None:
        if client := self._client():
            client.opted_out = True
            self._write(client, "opts out")

    def change_tag(self) -> None:
        if client := self._client():
            client.tag = self._world.random.choice(TAGS)
            self._write(client, "is tagged")

    def change_phone(self) -> None:
        if client := self._client():
            client.phone = str(int(client.phone) + 1_000_000)
            self._write(client, "has another phone")

    def add_client(self) -> None:
        self._write(self._add(self._world.chance(0.3)), "comes")

    def _write(self, client: Client, what: str) -> None:
        self._promises.touched.add(client.id)
        self._database.changed(client)
        self._world.tell("client", client.id, what)

    def delete_client(self) -> None:
        if client := self._client():
            self._promises.touched.add(client.id)
            delete_client(self._database, client)
            self._world.tell("client", client.id, "goes")

    def resume_all(self) -> None:
        """Let every paused mailing go on."""
        for mailing in self._database.mailings.values():
            if mailing.state is MailingState.PAUSED:
                self._move(mailing, MailingState.RUNNING)
