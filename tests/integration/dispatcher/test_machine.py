"""Hypothesis plays with real dispatchers on a real database and looks for a way to break the ledger.

Between two rules all processes stand still; `passes` lets them run. Whatever was done, in the end
every message has one terminal status, the ledger agrees with itself, and nobody got a message
twice whom it may not have reached twice. Fails when settle does not ask for the fence (seen).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.settings import DispatchSettings
from dispatcher.model.states import AudienceMode, ErrorClass, Semantics, Status
from server.config import Settings
from server.domain.clients import known_zones
from server.domain.errors import DomainError
from server.storage.client_deletion import ClientDeletion
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.installation import Installation
from server.storage.mailing_retry import MailingRetry
from server.storage.mailings import MailingStore
from server.storage.pool import open_pool
from tests.conftest import TEMPLATE, PostgresServer
from tests.support.endpoints import ScriptedSender, answer, broken
from tests.support.eventually import eventually
from tests.support.faults import FaultyStorage
from tests.support.ledger import BUCKETS, add_clients, add_mailing, audit

T = TypeVar("T")

ANSWERS: dict[str, Answer] = {
    "taken": answer(),
    "refused": answer(404),
    "rejected": answer(200, b'{"code":7}'),
    "broken": answer(500),
    "busy": answer(429, retry_after="0"),
    "nonsense": answer(200, b"<html>"),
    "cut": broken(ErrorClass.DISCONNECT),
    "no connection": broken(ErrorClass.CONNECT, sent=False),
}

UNCERTAIN = {"taken", "nonsense", "cut"}
"""Answers after which the client may have the message."""

REPLIES = st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=12)

LOSSES = st.lists(
    st.tuples(
        st.sampled_from(["settle", "settle", "claim", "definitions", "scan", "expand", "release_orphans"]),
        st.sampled_from(["before", "after"]),
    ),
    max_size=4,
)


class Machine(RuleBasedStateMachine):
    """Two dispatchers at the most, a few clients, and users who change their minds."""

    server: PostgresServer

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.dispatchers: list[tuple[Dispatcher, asyncio.Task[None], FaultyStorage, UUID]] = []
        self.losses: list[tuple[str, str]] = []
        self.answers: list[str] = []
        self.got: dict[int, list[str]] = defaultdict(list)
        self.mailings: dict[int, Semantics] = {}
        self.clients = 16
        self.retried: set[int] = set()
        self.stolen = False
        self.run(self._open())

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(act)

    async def _open(self) -> None:
        self.database = await self.server.create(TEMPLATE)
        self._pool_context = open_pool(self.server.dsn(self.database), Settings(), 8)
        self.pool = await self._pool_context.__aenter__()
        database, installation = Database(self.pool), Installation(BUCKETS, known_zones(["Europe/Moscow"]), UUID(int=0))
        self.store = MailingStore(database, installation, self._hint)
        self.retries = MailingRetry(database, self._hint)
        self.deletion = ClientDeletion(database, installation)
        self.gate = asyncio.Event()
        self.gate.set()

    def _hint(self) -> None:
        for dispatcher, *_ in self.dispatchers:
            dispatcher.hint()

    def _sender(self) -> ScriptedSender:
        """Return a sender for one dispatcher, which ends with it; all hang together."""
        sender = ScriptedSender(lambda client_id, number: self._answer(sender))
        sender.gate = self.gate
        return sender

    def _answer(self, sender: ScriptedSender) -> Answer:
        message_id = sender.answering  # not the last request: what hangs is answered later
        reply = self.answers.pop(0) if self.answers else "taken"
        self.answers.append(reply)
        self.got[message_id].append(reply)
        return ANSWERS[reply]

    def _fault(self, statement: str) -> str:
        for index, (name, fault) in enumerate(self.losses):
            if name == statement:
                del self.losses[index]
                return fault
        return ""

    @initialize(
        clients=st.integers(2, 12),
        hanging=st.booleans(),
        semantics=st.sampled_from(Semantics),
        replies=REPLIES,
        losses=LOSSES,
    )
    def begins(
        self, clients: int, hanging: bool, semantics: Semantics, replies: list[str], losses: list[tuple[str, str]]
    ) -> None:
        self.run(self._join(clients))
        self.answers, self.losses = replies, losses
        self.sends(semantics, AudienceMode.SNAPSHOT, None, 4)
        self.endpoint_hangs_or_answers(not hanging)
        self.starts()
        self.starts()
        self.passes(60)

    @precondition(lambda self: len(self.dispatchers) < 2)
    @rule()
    def starts(self) -> None:
        async def start() -> None:
            self._start()

        self.run(start())

    def _start(self) -> None:
        holder = uuid4()
        storage = FaultyStorage(dispatcher_storage(DispatcherDatabase(self.pool), holder), self._fault)
        endpoint = Endpoint("default", "http://127.0.0.1:1/", "", total_timeout=0.5)
        pace = DispatchSettings(poll_max=0.05, recheck_min=0.02, recheck_max=0.1, max_concurrency=2)
        dispatcher = Dispatcher(storage.ports, [(endpoint, self._sender())], pace)
        self.dispatchers.append((dispatcher, asyncio.create_task(dispatcher.run()), storage, holder))

    @precondition(lambda self: self.dispatchers)
    @rule(cut=st.booleans())
    def ends(self, cut: bool) -> None:
        """One dispatcher ends: in good order, or so that it can tell nobody what it did."""

        async def end() -> None:
            dispatcher, task, storage, _ = self.dispatchers.pop()
            storage.cut = cut
            await dispatcher.stop(grace=0.0 if cut else 2.0)
            await task

        self.run(end())

    async def _join(self, count: int) -> None:
        await add_clients(self.pool, count, self.clients)
        self.clients += count

    @rule(
        semantics=st.sampled_from(Semantics),
        audience=st.sampled_from(AudienceMode),
        ends_in=st.sampled_from([None, None, 0.15, 5.0]),
        attempts=st.integers(1, 4),
    )
    def sends(self, semantics: Semantics, audience: AudienceMode, ends_in: float | None, attempts: int) -> None:
        async def send() -> None:
            mailing_id = await add_mailing(
                self.pool, semantics=semantics, audience=audience, ends_in=ends_in, max_attempts=attempts, backoff=0.02
            )
            self.mailings[mailing_id] = semantics
            self._hint()

        self.run(send())

    @rule(replies=REPLIES)
    def answers_will_be(self, replies: list[str]) -> None:
        self.answers = replies

    @rule(losses=LOSSES)
    def answers_of_the_database_get_lost(self, losses: list[tuple[str, str]]) -> None:
        self.losses += losses

    @rule(milliseconds=st.sampled_from([1, 5, 20, 60, 250, 400]))
    def passes(self, milliseconds: int) -> None:
        self.run(asyncio.sleep(milliseconds / 1000))

    @rule(up=st.booleans())
    def endpoint_hangs_or_answers(self, up: bool) -> None:
        """While it hangs it takes requests and answers none."""
        if up:
            self.gate.set()
        else:
            self.gate.clear()

    @precondition(lambda self: self.mailings)
    @rule(verb=st.sampled_from(["pause", "resume", "cancel", "retry"]), which=st.integers(0, 99))
    def moves(self, verb: str, which: int) -> None:
        mailing_id = sorted(self.mailings)[which % len(self.mailings)]

        async def move() -> None:
            with contextlib.suppress(DomainError):  # a refusal is an answer, too
                if verb == "retry":
                    self.retried |= {mailing_id}
                    await self.retries.retry(mailing_id, [Status.FAILED, Status.EXPIRED, Status.UNKNOWN])
                else:
                    await getattr(self.store, verb)(mailing_id)

        self.run(move())

    @rule(act=st.sampled_from(["joins", "leaves", "opts out"]), which=st.integers(0, 99))
    def client(self, act: str, which: int) -> None:
        async def change() -> None:
            ids = [row["id"] for row in await self.pool.fetch("SELECT id FROM clients ORDER BY id")]
            if act == "joins" or not ids:
                await self._join(1)
            elif act == "leaves":
                await self.deletion.delete(ids[which % len(ids)], "")
            else:
                await self.pool.execute("UPDATE clients SET opted_out = true WHERE id = $1", ids[which % len(ids)])

        self.run(change())

    @rule()
    def leases_run_out(self) -> None:
        """As if every dispatcher had stood still for a minute, and gone on without noticing."""
        self.stolen = True
        self.run(self.pool.execute("UPDATE batches SET lease_until = '-infinity' WHERE lease_until > now()"))
        self._hint()
        self.passes(60)

    @invariant()
    def the_ledger_is_sound(self) -> None:
        assert self.run(audit(self.pool)) == []

    def teardown(self) -> None:
        try:
            self.run(self._come_to_rest())
        finally:
            self.run(self._close())
            self.runner.close()

    async def _come_to_rest(self) -> None:
        """Faults and users cease; everything must end."""
        self.losses.clear()
        self.answers.clear()
        self.gate.set()
        await self.pool.execute("UPDATE mailings SET state = 2, version = version + 1 WHERE state = 3")
        alive = [holder for *_, holder in self.dispatchers]
        await self.pool.execute(
            "UPDATE batches SET lease_until = '-infinity' WHERE holder <> ALL($1::uuid[]) AND lease_until > now()",
            alive,
        )
        if not self.dispatchers:
            self._start()
        self._hint()
        await eventually(self._unfinished, lambda left: left == 0, within=60.0)  # a probe may be 15 s ahead
        assert await audit(self.pool) == []
        self._check_repetitions()

    async def _unfinished(self) -> int:
        left: int = await self.pool.fetchval(
            "SELECT (SELECT count(*) FROM ledger WHERE status = 1) + (SELECT count(*) FROM batches)"
            " + (SELECT count(*) FROM mailings WHERE state IN (1, 3) OR (state = 2 AND audience_mode = 2))"
        )
        return left

    def _check_repetitions(self) -> None:
        for message_id, replies in self.got.items():
            semantics = self.mailings[message_id >> 32]
            if semantics is Semantics.AT_MOST_ONCE and not self.stolen and message_id >> 32 not in self.retried:
                assert not UNCERTAIN & set(replies[:-1]), (message_id & 0xFFFFFFFF, replies)
            assert len(replies) <= 40, replies

    async def _close(self) -> None:
        for dispatcher, task, storage, _ in self.dispatchers:
            storage.cut = True
            await dispatcher.stop(grace=0.0)
            await task
        await self._pool_context.__aexit__(None, None, None)
        await self.server.drop(self.database)


def test_no_play_breaks_the_ledger(postgres_server: PostgresServer) -> None:
    """Bounded: fifteen plays, or PLAYS of them: `make simulation` tries more."""
    machine = type("Play", (Machine,), {"server": postgres_server})
    logging.disable(logging.CRITICAL)
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=int(os.environ.get("PLAYS", "15")),
                stateful_step_count=18,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],  # real time never repeats itself exactly enough to shrink
                report_multiple_bugs=False,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        logging.disable(logging.NOTSET)
