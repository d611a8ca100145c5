"""How fast mailings to one endpoint are while another endpoint asks for patience, against alone.

Of two endpoints one accepts everything and one answers 429 with Retry-After to everything. Mailings to the first one
are delivered in turn without and beside a mailing to the second one, so that what else the machine does
affects both alike. The median of the ratios is the result: 1 means that the neighbour loses nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.endpoint import SmallEndpoint
from bench.measure import say
from bench.service import BenchmarkFailed, Service, running_service
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import CancelMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub

FILE = """[endpoints.ok]
url = "{ok}"
token = "bench"
[endpoints.busy]
url = "{busy}"
token = "bench"
"""


async def rate(service: Service) -> float:
    """Return the messages a second of one mailing to the endpoint that accepts."""
    created = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT, endpoint="ok")
    progress = (await service.completed(created.id)).progress
    began = created.create_time.ToNanoseconds()
    return progress.delivered / (progress.last_delivery_time.ToNanoseconds() - began) * 1e9


async def rate_beside(service: Service, busy: SmallEndpoint) -> float:
    """Return the same while a mailing to the other endpoint waits for it."""
    asked = sum(1 for _ in busy.requests())
    created = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT, endpoint="busy")
    while sum(1 for _ in busy.requests()) == asked:  # noqa: ASYNC110 - another process knows
        await asyncio.sleep(0.05)
    found = await rate(service)
    await MailingServiceStub(service.channel).CancelMailing(CancelMailingRequest(mailing_id=created.id))
    return found


@contextmanager
def endpoints_file(ok: str, busy: str) -> Iterator[str]:
    """Lend the path of a file that describes both endpoints."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(FILE.format(ok=ok, busy=busy))
        file.flush()
        yield file.name


async def measure(messages: int, times: int, busy: SmallEndpoint, file: str) -> dict[str, Any]:
    """Measure so many pairs and return the median of their ratios."""
    async with running_service("", settings={"MAILING_ENDPOINTS_FILE": file, "MAILING_DISPATCHERS": "0"}) as service:
        await service.import_clients(messages)
        await rate(service)  # the first one finds out how many requests at once are best
        pairs = []
        for _ in range(times):
            pairs.append((await rate(service), await rate_beside(service, busy)))
            say("  {:,.0f}/s alone, {:,.0f}/s beside".format(*pairs[-1]))
    return {
        "bench": "neighbour",
        "messages": messages,
        "alone_per_s": round(statistics.median(alone for alone, _ in pairs)),
        "beside_per_s": round(statistics.median(beside for _, beside in pairs)),
        "times_of_alone": round(statistics.median(alone / beside for alone, beside in pairs), 2),
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench neighbour", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="messages of each mailing (20000)")
    parser.add_argument("--times", type=int, default=5, help="pairs of mailings (5)")
    parser.add_argument("--retry-after", type=int, default=2, help="seconds that the busy endpoint asks for (2)")
    options = parser.parse_args(arguments)
    if options.retry_after < 1:
        raise BenchmarkFailed("the busy endpoint should ask for a second or more")
    ok, busy = SmallEndpoint(), SmallEndpoint(busy=options.retry_after)
    try:
        with endpoints_file(ok.url, busy.url) as file:
            return asyncio.run(measure(options.messages, options.times, busy, file))
    finally:
        ok.stop()
        busy.stop()
