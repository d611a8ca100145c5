"""How fast a mailing's audience becomes ledger rows, and how soon a huge one gets its first message.

The expansion is measured alone: every client's receive window is closed for hours, so
nothing is sent. The first message is measured on as many clients without a window, from
CreateMailing's return to the first byte at the endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from bench.measure import peak_rss_mb, say
from bench.service import BenchmarkFailed, Service, running_service
from bench.stamping_endpoint import stamping_endpoint
from mailing.v1.client_pb2 import ReceiveWindow
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.time_of_day_pb2 import TimeOfDay

_LIMIT_SECONDS = 600.0


def closed_window() -> ReceiveWindow:
    """Return a window of an hour, in UTC, that opens in about twelve hours."""
    hours = (time.gmtime().tm_hour + 12) % 24
    return ReceiveWindow(start=TimeOfDay(hours=hours), duration=Duration(seconds=3600))


async def expanded(service: Service, mailing_id: int) -> Mailing:
    """Return the mailing once its whole audience stands in the ledger."""
    ends = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < ends:
        mailing = await service.get_mailing(mailing_id)
        if mailing.progress.expanded:
            return mailing
        await asyncio.sleep(0.02)
    raise BenchmarkFailed(f"not expanded within {_LIMIT_SECONDS:.0f} s: {mailing.progress}")


async def measure(clients: int, open_clients: int) -> dict[str, Any]:
    """Measure both on one service."""
    async with stamping_endpoint() as endpoint, running_service(endpoint.url) as service:
        say(f"importing {clients:,} clients whose window is closed and {open_clients:,} without one")
        await service.import_clients(clients, tag="closed", window=closed_window())
        await service.import_clients(open_clients, tag="open", first_phone=78000000000)
        await service.postgres.execute("CHECKPOINT")
        wal = await service.wal_position()
        say("expanding")
        began = time.monotonic()
        mailing = await service.create_mailing(tags=["closed"], audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
        mailing = await expanded(service, mailing.id)
        seconds = time.monotonic() - began
        if mailing.progress.total != clients or mailing.progress.pending != clients:
            raise BenchmarkFailed(f"{clients:,} messages should be pending: {mailing.progress}")
        wal = await service.wal_position() - wal
        say("waiting for the first message of the others")
        huge = await service.create_mailing(tags=["open"])
        returned = time.time()
        first = max(0.0, await endpoint.stamp(huge.id) - returned)
        return {
            "bench": "expand",
            "clients": clients,
            "per_s": round(clients / seconds),
            "wal_bytes_per_message": round(wal / clients),
            "first_message_ms": round(first * 1000, 1),
            "first_message_audience": open_clients,
            "rss_mb": peak_rss_mb(service.pid),
        }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench expand", description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000_000, help="clients to expand to (1000000)")
    parser.add_argument("--open-clients", type=int, help="audience of the first message (as many)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.clients, options.open_clients or options.clients))
