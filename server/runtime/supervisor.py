"""Runs dispatchers in processes beside the server, so that calls stay fast under full load.

A process that dies is started again, after a growing wait. None outlives the server: each shuts
down when its standard input is closed, which the kernel does in any case.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dispatcher.model.endpoints import Endpoint
from dispatcher.signals import Signal
from dispatcher.tasks import happens
from server.observability.logging import LEVEL_SIGNALS, current_level
from server.observability.metrics import Samples, Totals
from server.observability.metrics.reports import Reports

COMMAND = (sys.executable, "-m", "server.main", "dispatch", "--until-stdin-closes")

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds before a new start
_MARGIN = 5.0
"""Seconds for closing connections, on top of the grace for requests in flight."""

_POLL = 0.1
"""Seconds between two checks whether a process has ended."""

_STEADY = 60.0
"""Seconds after which a process counts as stable, and the wait is short again."""


class Supervisor:
    """`size` dispatcher processes; a `server.runtime.local_dispatcher.Dispatch`.

    `settings` are the variables that make them work like the server and on its database.
    """

    def __init__(self, size: int, settings: Mapping[str, str], log_file: Path | None = None) -> None:
        self._size = size
        self._log_file = log_file
        self._environment = {**os.environ, **settings}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._totals = Totals()
        self.refused = Signal[str]()  # nothing is sent from here

    def samples(self) -> Samples:
        """Return the metrics of all processes, those that have ended included."""
        return self._totals.samples()

    def written_at(self) -> float:
        """Return when one of them last wrote to the database, as it reported (monotonic)."""
        return self._totals.written_at

    def renew(self, endpoint: Endpoint) -> None:
        """Do nothing: every process reads the files itself."""

    def hint(self) -> None:
        """Do nothing: the database's notifications reach every process."""

    async def run(self) -> None:
        """Run the processes until `stop` is called, then return when all have ended."""
        async with asyncio.TaskGroup() as group:
            for number in range(1, self._size + 1):
                group.create_task(self._restart(number))

    async def stop(self, grace: float) -> None:
        """Ask all to end, with `grace` seconds to settle requests in flight."""
        self._grace = grace
        self._stopping.set()

    def signal(self, number: int) -> None:
        """Send all of them a signal."""
        for process in self._processes:
            process.send_signal(number)

    async def _restart(self, number: int) -> None:
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            started = asyncio.get_running_loop().time()
            code = await self._one(number)
            if self._stopping.is_set():
                return
            worked = asyncio.get_running_loop().time() - started
            wait = _FIRST_WAIT if worked > _STEADY else min(2 * wait, _LONGEST_WAIT)
            log.error("dispatcher %d ended with status %d: the next one starts in %.1f s", number, code, wait)
            await happens(self._stopping, wait)

    async def _one(self, number: int) -> int:
        """Run one process to its end and return its status."""
        environment = {**self._environment, "MAILING_LOG_LEVEL": current_level()}
        if self._log_file is not None:
            # A file each: processes that rotate the same file lose each other's entries.
            environment["MAILING_LOG_FILE"] = f"{self._log_file}.dispatcher-{number}"
        # Not by asyncio: uvloop forks in a way that gRPC's threads must be halted for.
        with _blocked(LEVEL_SIGNALS):
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - takes a millisecond, the command is ours
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
        assert process.stdin is not None
        assert process.stdout is not None
        self._processes.add(process)
        reports = Reports(process.stdout, partial(self._totals.report, number))
        try:
            while process.poll() is None and not await happens(self._stopping, _POLL):
                pass
            process.stdin.close()
            give_up_at = time.monotonic() + self._grace + _MARGIN
            while process.poll() is None and time.monotonic() < give_up_at:  # noqa: ASYNC110 - the kernel sets no Event
                await asyncio.sleep(_POLL)
        finally:
            self._processes.discard(process)
            process.kill()
            process.wait()
            reports.close()
            self._totals.end(number, expected=self._stopping.is_set())
        return process.returncode


@contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Block signals for a process that is started inside: they would kill it before it handles them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
