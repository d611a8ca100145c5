"""Promises in numbers: rates over replicas, fairness, ends and Pause, on real processes.

`rate_*`: three dispatchers deliver one mailing with a rate; over ten seconds, and in the busiest
one, how many times that rate reached the endpoint. `small_*`: how long a mailing to 50 clients
takes, alone and beside a large one at full speed. `end_*`: after the end of a mailing of which most
is unsent, when the last request came, when the last message was settled, and when it was
COMPLETED. `pause_*`: when the last request came after PauseMailing had returned.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bench.endpoint import start_endpoint
from bench.measure import say
from bench.service import Service, running_service
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PauseMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub

SNAPSHOT = Mailing.AUDIENCE_MODE_SNAPSHOT
FEW = 50
PROGRAM = Path(__file__).parents[1] / "examples" / "endpoint.py"


class TimingEndpoint:
    """The example endpoint in a process of its own; it knows when each message came."""

    def __init__(self) -> None:
        command = [sys.executable, str(PROGRAM), "--listen", "127.0.0.1:0", "--token", "bench"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def times(self) -> list[float]:
        """Return when each message came, in seconds since the epoch, in order."""
        with urllib.request.urlopen(self.url + "received", timeout=60) as answer:
            return list(json.load(answer)["times"])

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


@contextlib.asynccontextmanager
async def timed(*arguments: str) -> AsyncIterator[tuple[Service, TimingEndpoint]]:
    """Lend a service that delivers to a timing endpoint."""
    endpoint = TimingEndpoint()
    try:
        async with running_service(endpoint.url, arguments) as service:
            yield service, endpoint
    finally:
        endpoint.stop()


def at(moment: float) -> Timestamp:
    """Return a time as the API takes it."""
    return Timestamp(seconds=int(moment), nanos=int(moment % 1 * 1e9))


async def rate(wanted: float, seconds: float) -> dict[str, float]:
    """Return how well three dispatchers together keep a rate."""
    say(f"a rate of {wanted:.0f}/s over three dispatchers, {seconds:.0f} s")
    async with timed("--dispatchers", "3") as (service, endpoint):
        await service.import_clients(int(wanted * (seconds + 4)))
        await service.create_mailing(max_rate=wanted, audience_mode=SNAPSHOT)
        await asyncio.sleep(seconds + 3)
        times = await asyncio.to_thread(endpoint.times)
    first = times[0] + 1.0
    return {
        "rate_kept": round(sum(first <= moment < first + seconds for moment in times) / (wanted * seconds), 4),
        "rate_busiest_second": round(busiest_second(times) / wanted, 4),
    }


def busiest_second(times: Sequence[float]) -> int:
    """Return the most moments within any second."""
    ordered, first, most = sorted(times), 0, 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


async def fairness(large: int) -> dict[str, float]:
    """Return how long a small mailing takes alone and beside a large one."""
    endpoint = start_endpoint()
    try:
        async with running_service(endpoint.url) as service:
            await service.import_clients(FEW, tag="few")
            say(f"importing {large:,} clients")
            await service.import_clients(large, tag="many", first_phone=78000000000)
            alone = await small_seconds(service)
            say(f"{FEW} messages beside {large:,}")
            mailing = await service.create_mailing(tags=["many"], audience_mode=SNAPSHOT)
            await delivered(service, mailing.id, large // 100)
            beside = await small_seconds(service)
            left = (await service.get_mailing(mailing.id)).progress
    finally:
        endpoint.stop()
    return {
        "small_alone_s": round(alone, 3),
        "small_beside_s": round(beside, 3),
        "large_delivered_meanwhile": left.delivered,
    }


async def delivered(service: Service, mailing_id: int, messages: int) -> None:
    """Return when so many messages of a mailing are delivered."""
    while (await service.get_mailing(mailing_id)).progress.delivered < messages:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


async def small_seconds(service: Service) -> float:
    """Return how long a mailing to a few clients takes, as its ledger tells it."""
    began = time.time()
    mailing = await service.create_mailing(tags=["few"], audience_mode=SNAPSHOT)
    done = await service.completed(mailing.id, 60)
    return done.progress.last_delivery_time.ToNanoseconds() / 1e9 - began


async def ends(messages: int) -> dict[str, float]:
    """Return how promptly a mailing ends of which most is unsent."""
    say(f"the end of a mailing with {messages:,} messages")
    async with timed() as (service, endpoint):
        await service.import_clients(messages)
        ends_at = time.time() + 6.0
        mailing = await service.create_mailing(end_time=at(ends_at), max_rate=500.0, audience_mode=SNAPSHOT)
        done = await service.completed(mailing.id, 60)
        settled = await service.postgres.fetchval(
            "SELECT extract(epoch FROM max(settled_at))::float8 FROM ledger WHERE mailing_id = $1", mailing.id
        )
        times = await asyncio.to_thread(endpoint.times)
    return {
        "end_last_request_ms": round((max(times) - ends_at) * 1000, 1),
        "end_settled_s": round(settled - ends_at, 3),
        "end_completed_s": round(done.update_time.ToNanoseconds() / 1e9 - ends_at, 3),
        "end_expired": done.progress.expired,
    }


async def pause(messages: int) -> dict[str, float]:
    """Return how long requests still come after PauseMailing has returned, at full speed."""
    say("pausing a mailing at full speed")
    async with timed() as (service, endpoint):
        await service.import_clients(messages)
        mailing = await service.create_mailing(audience_mode=SNAPSHOT)
        await delivered(service, mailing.id, messages // 10)
        mailings = MailingServiceStub(service.channel)
        await mailings.PauseMailing(PauseMailingRequest(mailing_id=mailing.id))
        returned = time.time()
        await asyncio.sleep(2.0)
        times = await asyncio.to_thread(endpoint.times)
    return {"pause_last_request_s": round(max(times) - returned, 3), "pause_unsent": messages - len(times)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one after the other, each on a service of its own."""
    return {
        "bench": "life",
        **await rate(options.rate, 10.0),
        **await ends(options.ending),
        **await pause(options.ending),
        **await fairness(options.large),
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench life", description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second of the mailing with a rate (500)")
    parser.add_argument("--ending", type=int, default=100_000, help="messages of the mailings that end early (100000)")
    parser.add_argument("--large", type=int, default=1_000_000, help="messages beside the small mailing (1000000)")
    return asyncio.run(measure(parser.parse_args(arguments)))
