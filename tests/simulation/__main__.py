"""`python -m tests.simulation SEED [LAST]`: shows one schedule, or which of many break a promise."""

from __future__ import annotations

import logging
import sys

from tests.simulation.schedule import run


def main(first: int, last: int | None = None) -> None:
    """Run the schedules and print what came of them."""
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda unraisable: None
    if last is None:
        report = run(first)
        print("\n".join([*report.trace, "", *(report.broken or ["every promise holds"])]))
        return
    broken = [report for report in map(run, range(first, last + 1)) if report.broken]
    for report in broken:
        print(report.seed, report.broken[0])
    print(f"{len(broken)} of {last + 1 - first} schedules break a promise")


main(*map(int, sys.argv[1:]))
