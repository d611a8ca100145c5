"""Whether the hosts of endpoints resolve on this machine: looked up when asked, believed for a while.

It is told at the start and by ListEndpoints, so that a mistyped name is seen before a message
has failed for it. It decides nothing: senders look names up by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic
from urllib.parse import urlsplit

from dispatcher.model.records import Endpoint

BELIEVED = 10.0
"""Seconds before the hosts are looked up again."""

PATIENCE = 2.0
"""Seconds that a lookup may take."""


class DnsCheck:
    """The hosts of some endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._dns = {endpoint.name: urlsplit(endpoint.url).hostname or "" for endpoint in endpoints}
        self._failures: dict[str, str] = {}
        self._known_until = float("-inf")
        self._looking = asyncio.Lock()

    async def failures(self) -> dict[str, str]:
        """Return a sentence for each endpoint, by its name, whose host does not resolve here."""
        async with self._looking:
            if monotonic() >= self._known_until:
                hosts = sorted(set(self._dns.values()))
                answers = await asyncio.gather(*map(_failure, hosts))
                self._failures = {host: why for host, why in zip(hosts, answers, strict=True) if why}
                self._known_until = monotonic() + BELIEVED
        return {name: self._failures[host] for name, host in self._dns.items() if host in self._failures}


async def _failure(host: str) -> str:
    """Return what is wrong with a host, '' when it resolves."""
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        return f"the host {host} was not resolved within {PATIENCE:g} s"
    except (OSError, UnicodeError) as error:  # the latter for names that no resolver can be asked for
        return f"the host {host} does not resolve ({error})"
    return ""
