"""An occurrence makes one mailing, whenever a replica dies and however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import grpc

from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import CreateScheduleRequest, ResumeScheduleRequest
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from tests.faults.conftest import Service, StartService
from tests.support.eventually import eventually
from tests.support.locks import blocked, holding

COUNT = 20
COUNTED = "SELECT count(m.id) AS n FROM schedules s LEFT JOIN mailings m ON m.schedule_id = s.id GROUP BY s.id"
LOG = "SELECT FROM log_seqs WHERE bucket = 0 FOR UPDATE"
"""What is taken last by a transaction that makes a mailing."""


@contextmanager
def schedules_of(service: Service) -> Iterator[ScheduleServiceStub]:
    with grpc.insecure_channel(service.address) as channel:
        yield ScheduleServiceStub(channel)


def create(service: Service, count: int = 1) -> list[int]:
    # A mailing that no client matches: the test is about mailings, not about messages.
    template = Mailing(text="Hello", filter=ClientFilter(tags=["nobody"]), audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
    schedule = Schedule(mailing=template, cron="0 0 1 1 *", timezone="UTC", overlap=Schedule.OVERLAP_ALLOW)
    with schedules_of(service) as stub:
        return [stub.CreateSchedule(CreateScheduleRequest(schedule=schedule)).schedule.id for _ in range(count)]


def look(service: Service, schedule_id: int) -> None:
    """Make a replica look when its schedules are due: resuming one that is not paused changes nothing else."""
    with schedules_of(service) as stub:
        stub.ResumeSchedule(ResumeScheduleRequest(schedule_id=schedule_id))


async def made(pool: asyncpg.Pool) -> list[int]:
    """Return how many mailings each schedule made."""
    rows = await pool.fetch(COUNTED)
    return [row["n"] for row in rows]


async def test_a_replica_killed_as_it_makes_a_mailing_leaves_it_to_others(
    start_service: StartService, pool: asyncpg.Pool
) -> None:
    """Fails when the mailing and the schedule's next time are written in two transactions."""
    first = start_service()
    [schedule] = create(first)
    await pool.execute("UPDATE schedules SET next_at = date_trunc('second', now())")
    async with holding(pool, LOG):
        looking = asyncio.create_task(asyncio.to_thread(look, first, schedule))
        await blocked(pool)
        first.kill()
        await asyncio.gather(looking, return_exceptions=True)
    assert await made(pool) == [0]
    start_service()
    await eventually(lambda: made(pool), lambda counts: counts == [1])
    third = start_service()
    await asyncio.to_thread(look, third, schedule)
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM schedules WHERE next_at > now()"))
    assert await made(pool) == [1]


async def test_two_replicas_of_which_one_dies_make_each_mailing_once(
    start_service: StartService, pool: asyncpg.Pool
) -> None:
    first, second = start_service(), start_service()
    ids = create(first, COUNT)
    await pool.execute("UPDATE schedules SET next_at = date_trunc('second', now()) + interval '2 s'")
    for service in (first, second):
        await asyncio.to_thread(look, service, ids[0])
    await eventually(lambda: made(pool), lambda counts: sum(counts) > 0)
    first.kill()
    await eventually(lambda: made(pool), lambda counts: counts == [1] * COUNT)
    assert await pool.fetchval("SELECT count(DISTINCT occurrence_at) FROM mailings") == 1
    late = await pool.fetchval("SELECT max(created_at) - min(occurrence_at) FROM mailings")
    assert late.total_seconds() < 5
