"""`python -m tests.simulation [timed] SEED [LAST]`: shows one schedule, or which of many break a promise."""

from __future__ import annotations

import logging
import sys

from tests.simulation.schedule import run


def main(timed: bool, first: int, last: int | None = None) -> None:
    """Run the schedules and print what came of them."""
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda unraisable: None
    if last is None:
        report = run(first, timed)
        print("\n".join([*report.trace, "", *(report.broken or ["every promise holds"])]))
        return
    broken = [report for seed in range(first, last + 1) if (report := run(seed, timed)).broken]
    for report in broken:
        print(report.seed, report.broken[0])
    print(f"{len(broken)} of {last + 1 - first} schedules break a promise")


main("timed" in sys.argv, *(int(argument) for argument in sys.argv[1:] if argument != "timed"))
