"""Where an endpoint's name points to: looked up again and again, tried in turn.

A lookup is shared by all who wait for it and is believed for `TTL` seconds; while lookups
fail, the last good answer serves on for `STALE` seconds more. Addresses take turns, and one
that did not answer goes to the back until the next lookup.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import NamedTuple

from dispatcher.tasks import SingleFlight

TTL = 30.0
STALE = 300.0


class Address(NamedTuple):
    """What `socket.socket` and `connect` want."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


LookUp = Callable[[str, int], Awaitable[list[Address]]]
"""Returns the addresses of a host and port; raises OSError where there are none."""


async def look_up(host: str, port: int) -> list[Address]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


class Addresses:
    """The addresses of one host and port."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up) -> None:
        self._ask = partial(look_up, host, port)
        self._known: list[Address] = []
        self._known_at = float("-inf")
        self._dead: set[Address] = set()
        self._turn = 0
        self._look_up = SingleFlight(self._renew, "name lookup")

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
        await self._look_up.close()

    async def _renew(self) -> None:
        try:
            self._known = await self._ask()
        except OSError:
            if monotonic() - self._known_at >= TTL + STALE:
                raise
            return
        self._known_at = monotonic()
        self._dead.clear()
