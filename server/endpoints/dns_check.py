"""Checks whether the hosts of endpoints resolve on this machine, and caches the answers for a while.

The result is logged at the start and shown by ListEndpoints, so that a mistyped name is noticed
before a message fails. It decides nothing: senders resolve names themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from dispatcher.model.endpoints import Endpoint
from dispatcher.tasks import CachedRead

CACHE_TIME = 10.0
"""Seconds before the hosts are resolved again."""

PATIENCE = 2.0
"""Maximum duration of a lookup, in seconds."""


class DnsCheck:
    """Resolves the hosts of some endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._hosts = {endpoint.name: urlsplit(endpoint.url).hostname or "" for endpoint in endpoints}
        self._failures = CachedRead(self._resolve, "dns check")

    async def failures(self) -> dict[str, str]:
        """Return a sentence for each endpoint, by its name, whose host does not resolve here."""
        failures = await self._failures.get(CACHE_TIME)
        return {name: failures[host] for name, host in self._hosts.items() if host in failures}

    async def _resolve(self) -> dict[str, str]:
        """Return a sentence for each host that does not resolve here."""
        hosts = sorted(set(self._hosts.values()))
        answers = await asyncio.gather(*map(_failure, hosts))
        return {host: why for host, why in zip(hosts, answers, strict=True) if why}


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
