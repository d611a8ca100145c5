"""What a unary call costs: GetMailing and CreateClient beside a hello of the same framework, in the same run.

`--callers` make one call at a time each, for `--seconds` to each of the three in turn, `--rounds` times; the caller
is a process of its own. `per_s` is the median rate of the rounds, `of_hello` that of the ratios within a
round, `cpu_ms` the CPU time of the serving process for a call, Postgres not included.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import grpc
import uvloop

from bench.hello import METHOD, SERVICE
from bench.measure import cpu_seconds, say
from bench.service import running_service
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub

Call = Callable[[], Awaitable[Any]]
_NEVER_SENT = Mailing(title="Spring", text="Hello {attributes.name|friend}", labels={"team": "growth"})
_OPTIONS = [("grpc.enable_http_proxy", 0)]


@asynccontextmanager
async def _hello() -> AsyncIterator[tuple[int, Call]]:
    """Lend the process of a hello and a call to it."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.hello", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
            unary: Any = channel.unary_unary(f"/{SERVICE}/{METHOD}")
            yield process.pid, lambda: unary(b"hello")
    finally:
        process.terminate()
        await process.wait()


async def _rate(call: Call, callers: int, seconds: float) -> tuple[float, int]:
    """Return the calls a second of so many callers, and how many there were."""
    made, ends = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal made
        while time.perf_counter() < ends:
            await call()
            made += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return made / (time.perf_counter() - began), made


async def measure(callers: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure all three in turn."""
    async with AsyncExitStack() as stack:
        hello, say_hello = await stack.enter_async_context(_hello())
        settings = {"MAILING_MAX_CALLS_PER_SECOND": "0"}
        service = await stack.enter_async_context(running_service("http://127.0.0.1:9/", settings=settings))
        mailings: Any = MailingServiceStub(service.channel)
        clients: Any = ClientServiceStub(service.channel)
        mailing = await service.create_mailing(title=_NEVER_SENT.title, labels=dict(_NEVER_SENT.labels))
        phones = count(79000000000)
        calls: dict[str, tuple[int, Call]] = {
            "hello": (hello, say_hello),
            "GetMailing": (service.pid, lambda: mailings.GetMailing(GetMailingRequest(mailing_id=mailing.id))),
            "CreateClient": (
                service.pid,
                lambda: clients.CreateClient(
                    CreateClientRequest(client=Client(phone=str(next(phones)), timezone="Europe/Moscow"))
                ),
            ),
        }
        for _, call in calls.values():
            await _rate(call, callers, 1.0)
        rates: dict[str, list[float]] = {name: [] for name in calls}
        cpu: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, (pid, call) in calls.items():
                before = cpu_seconds(pid)
                rate, made = await _rate(call, callers, seconds)
                rates[name].append(rate)
                cpu[name].append((cpu_seconds(pid) - before) / made * 1000)
                say(f"  {name}: {rate:,.0f} a second")
    ratios = {name: [ours / hellos for ours, hellos in zip(rates[name], rates["hello"], strict=True)] for name in rates}
    return {
        "bench": "calls",
        "callers": callers,
        "per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "of_hello": {name: round(statistics.median(values), 2) for name, values in ratios.items() if name != "hello"},
        "cpu_ms": {name: round(statistics.median(values), 2) for name, values in cpu.items()},
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench calls", description=__doc__)
    parser.add_argument("--callers", type=int, default=50, help="callers at once (default: 50)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each round (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    options = parser.parse_args(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(options.callers, options.seconds, options.rounds))
