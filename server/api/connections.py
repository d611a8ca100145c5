"""Bounds the connections of one host, so that none takes those of all others.

gRPC bounds the connections of all hosts together and knows no hosts. So this looks at the sockets of the process, and
ends the newest of a host that has too many, as far as descriptors show which these are: an older one may be in use.
gRPC then sees a connection that its caller closed. Nothing is done while the process has few files open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

log = logging.getLogger(__name__)

FILES = "/dev/fd"
"""The descriptors of this process, on Linux and macOS."""

INTERVAL, SOON = 0.5, 0.1
"""Seconds between two looks, and after one that found a host with too many."""

MOST_OF_TIME = 0.01
"""The share of the time that looks may take while they find nothing."""

LOG_INTERVAL = 60.0
"""Seconds between two words in the log about that."""


class HostBound:
    """Lets no host have more than `most` connections to a port of this process."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._most = most
        self._logged_at = float("-inf")

    async def run(self) -> None:
        """End what is too much, until cancelled."""
        wait = INTERVAL
        while True:
            await asyncio.sleep(wait)
            began = time.monotonic()
            excess = await asyncio.to_thread(end_excess, self._port, self._most) if self._may_be_too_many() else {}
            # A look takes 10 µs for each file: of many, as a fast dispatcher has, it comes less often.
            wait = SOON if excess else max(INTERVAL, (time.monotonic() - began) / MOST_OF_TIME)
            if excess and time.monotonic() - self._logged_at >= LOG_INTERVAL:
                self._logged_at = time.monotonic()
                host, count = max(excess.items(), key=lambda one: one[1])
                log.warning("%s has %d connections more than a host may have (%d): closed", host, count, self._most)

    def _may_be_too_many(self) -> bool:
        try:
            return len(os.listdir(FILES)) > self._most
        except OSError:  # descriptors cannot be seen here
            return False


def end_excess(port: int, most: int) -> dict[str, int]:
    """End the newest connections of hosts that have more than `most`; return how many, by host."""
    ended = {}
    for host, held in _by_host(port).items():
        if len(held) > most:
            ended[host] = sum(_end(one, host, port) for one in sorted(held)[most:])
    return ended


def _end(descriptor: int, host: str, port: int) -> bool:
    """End a connection, if the descriptor still is one of the host; return whether it was."""
    with _borrowed(descriptor) as connection:
        if connection is None or _host(connection, port) != host:
            return False
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return True


def _by_host(port: int) -> dict[str, list[int]]:
    """Return the descriptors of connections, by host: the older ones are lower, where none has ended meanwhile."""
    found = defaultdict[str, list[int]](list)
    for name in os.listdir(FILES):
        descriptor = int(name)
        with _borrowed(descriptor) as connection:
            if connection is not None and (host := _host(connection, port)):
                found[host].append(descriptor)
    return found


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """Lend a socket by its descriptor, which gRPC may close at any time; None for what is no socket (any more)."""
    with ExitStack() as stack:
        try:
            copy = os.dup(descriptor)
        except OSError:
            yield None
            return
        try:
            borrowed = stack.enter_context(socket.socket(fileno=copy))
        except OSError:
            os.close(copy)  # or each look would leave as many files open again
            yield None
            return
        yield borrowed


def _host(connection: socket.socket, port: int) -> str:
    """Return the host at the other end of a connection to the port, '' for any other socket."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    try:
        if connection.getsockname()[1] != port:
            return ""
        host = str(connection.getpeername()[0])
    except OSError:  # it listens, or it ended
        return ""
    return host.removeprefix("::ffff:")
