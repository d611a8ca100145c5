"""Where an endpoint's name points to: looked up again and again, tried in turn.

A lookup is shared by all who wait for it and is believed for `TTL` seconds; while lookups
fail, the last good answer serves on for `STALE` seconds more. Addresses take turns, and one
that did not answer goes to the back until the next lookup.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import NamedTuple

TTL = 30.0
STALE = 300.0


class Address(NamedTuple):
    """What `socket.socket` and `connect` want."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class Addresses:
    """The addresses of one host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: list[Address] = []
        self._known_at = float("-inf")
        self._dead: set[Address] = set()
        self._turn = 0
        self._lookup: asyncio.Task[None] | None = None

    async def candidates(self) -> list[Address]:
        """Return the addresses in the order in which to try them, never none.

        Raise OSError when the name does not resolve.
        """
        if monotonic() - self._known_at >= TTL:
            await self._look_up()
        self._turn += 1
        start = self._turn % len(self._known)
        turned = self._known[start:] + self._known[:start]
        return sorted(turned, key=self._dead.__contains__)

    def demote(self, address: Address) -> None:
        """Put an address that could not be connected to behind the others."""
        self._dead.add(address)

    async def close(self) -> None:
        """End a lookup under way."""
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait([self._lookup])

    async def _look_up(self) -> None:
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._ask())
            self._lookup.add_done_callback(self._looked_up)
        # Shielded: one cancelled send must not take the answer away from all others.
        await asyncio.shield(self._lookup)

    def _looked_up(self, lookup: asyncio.Task[None]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # read, as everybody who waited may have gone

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            if monotonic() - self._known_at >= TTL + STALE:
                raise
            return
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        self._known = list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))
        self._known_at = monotonic()
        self._dead.clear()
