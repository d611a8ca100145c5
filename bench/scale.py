"""How rate and memory go with the size of a mailing, and the rate with the number of dispatchers.

Sizes are delivered to the fastest endpoint there is; dispatchers work at one that takes
50 ms to answer, where concurrency is what counts. Every point has a service of its own.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import say
from bench.plot import Line, write_lines
from bench.throughput import measure as deliver

SIZES = (10_000, 100_000, 1_000_000)
FULL_SIZES = (*SIZES, 5_000_000)
DISPATCHERS = (1, 2, 4)
DELAY_MS = 50


async def point(messages: int, dispatchers: int = 0, delay_ms: int = 0) -> dict[str, Any]:
    """Deliver one mailing and return what matters of it."""
    say(f"{messages:,} messages, {dispatchers or 'no'} dispatchers beside the service, endpoint {delay_ms} ms")
    result = await deliver(messages, dispatchers, delay_ms, with_wrk=False)
    keys = ("messages", "dispatchers", "endpoint_delay_ms", "delivered_per_s", "rss_mb", "dispatchers_rss_mb")
    return {key: result[key] for key in (*keys, "settle_to_ledger_exact")}


async def measure(sizes: Sequence[int], dispatcher_messages: int) -> dict[str, Any]:
    """Measure every point, one after the other."""
    points = [await point(size) for size in sizes]
    points += [await point(dispatcher_messages, count, DELAY_MS) for count in DISPATCHERS]
    return {"bench": "scale", "points": points}


def draw(folder: Path, points: Sequence[dict[str, Any]]) -> None:
    """Draw rate and memory against size, and the rate against dispatchers."""
    sizes = [each for each in points if not each["dispatchers"]]
    processes = [each for each in points if each["dispatchers"]]
    counts = [f"{each['messages']:,}" for each in sizes]
    rates = [Line("messages/s", [each["delivered_per_s"] for each in sizes])]
    write_lines(folder / "scale-rate.svg", "Rate against the size of the mailing", "messages", counts, rates)
    memory = [Line("MB", [each["rss_mb"] for each in sizes])]
    write_lines(folder / "scale-memory.svg", "Peak memory of the service process", "messages", counts, memory)
    rates = [Line("messages/s", [each["delivered_per_s"] for each in processes])]
    names = [str(each["dispatchers"]) for each in processes]
    title = f"Rate against dispatchers, endpoint {DELAY_MS} ms"
    write_lines(folder / "scale-dispatchers.svg", title, "dispatchers", names, rates)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", help="sizes of mailings (10000 100000 1000000)")
    parser.add_argument("--full", action="store_true", help="5,000,000 messages too")
    parser.add_argument("--dispatcher-messages", type=int, default=200_000, help="messages for dispatchers (200000)")
    parser.add_argument("--plot", metavar="FOLDER", type=Path, help="draw into this folder, for instance docs")
    options = parser.parse_args(arguments)
    sizes = options.sizes or (FULL_SIZES if options.full else SIZES)
    result = asyncio.run(measure(sizes, options.dispatcher_messages))
    if options.plot:
        draw(options.plot, result["points"])
    return result
