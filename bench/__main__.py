"""Runs one benchmark: `python -m bench NAME [options]`.

Progress goes to stderr; the last line of stdout is one JSON object with the results. The exit status
is 1 when what was to be measured did not happen, as stderr then says.
"""

from __future__ import annotations

import importlib
import json
import sys

from bench.service import BenchmarkFailed

MODULES = {
    "throughput": "bench.throughput",
    "latency": "bench.latency",
    "idle": "bench.idle",
    "import": "bench.import_clients",
    "ledger": "bench.ledger",
    "expand": "bench.expand",
    "sender": "bench.sender",
    "peers": "bench.peers",
    "scale": "bench.scale",
    "report": "bench.report",
    "story": "bench.story",
    "life": "bench.life",
    "watchers": "bench.watchers",
    "soak": "bench.soak",
    "auth": "bench.auth",
    "calls": "bench.calls",
    "cluster": "bench.cluster",
    "neighbour": "bench.neighbour",
    "receipts": "bench.receipts",
    "console": "bench.console",
}


def main(arguments: list[str]) -> int:
    """Run the benchmark named first, with the remaining arguments, and return the exit status."""
    if not arguments or arguments[0] not in MODULES:
        wrong = f"{arguments[0]!r} is no benchmark. " if arguments and not arguments[0].startswith("-") else ""
        print(f"{wrong}usage: python -m bench {{{','.join(MODULES)}}} [options]", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        result = importlib.import_module(MODULES[arguments[0]]).main(arguments[1:])
    except BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    if isinstance(result, dict):
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
