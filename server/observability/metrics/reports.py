"""How a dispatcher process tells the server its figures: one line a second on a pipe.

Neither side ever waits for the other: what finds no room in the pipe is sent a second later.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO

from dispatcher.tasks import in_background
from server.observability.metrics.samples import Samples, decode, encode

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two reports: what a process did since its last one is lost when it is killed."""

LONGEST_LINE = 4 << 20
"""Bytes of a report; a longer one is dropped."""


@asynccontextmanager
async def reporting(samples: Callable[[], Samples], pipe: int) -> AsyncIterator[None]:
    """Report to the file descriptor `pipe` inside the block, and once more at its end."""
    writer = _Writer(pipe)
    try:
        async with in_background(_report(samples, writer), "reports"):
            yield
    finally:
        writer.write(encode(samples()))


async def _report(samples: Callable[[], Samples], writer: _Writer) -> None:
    while True:
        writer.write(encode(samples()))
        await asyncio.sleep(INTERVAL)


class _Writer:
    """Writes whole lines as far as there is room; a line that was begun is finished before the next."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._rest = b""

    def write(self, line: bytes) -> None:
        for part in (self._rest, line):
            if self._rest and part is line:
                return
            self._rest = part
            if part:
                self._push()

    def _push(self) -> None:
        try:
            self._rest = self._rest[os.write(self._pipe, self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._rest = b""


class Reports:
    """The server's end of one process's pipe. `received` is called with each report."""

    def __init__(self, pipe: IO[bytes], received: Callable[[Samples], None]) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._pipe = pipe
        self._received = received
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe.fileno(), self._read)

    def close(self) -> None:
        """Take in what the process said last, and let go of the pipe."""
        while self._read():
            pass
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()

    def _read(self) -> bool:
        """Take in what there is; return whether there may be more."""
        try:
            data = os.read(self._pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe.fileno())
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        if lines:
            self._take_in(lines[-1])
        return True

    def _take_in(self, line: bytes) -> None:
        try:
            samples = decode(line)
        except (ValueError, TypeError, AttributeError):
            log.warning("a dispatcher process sent a report that cannot be read")
        else:
            self._received(samples)
