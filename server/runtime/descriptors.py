"""The file descriptors of this process: as many as its connections may need, and a warning where that is refused.

Many systems start a process with a soft limit of 1,024, which a single busy endpoint uses up. Without a
descriptor no request can be made, and that says nothing about the endpoint.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence

from server.config import Settings
from server.config.types import ConfiguredEndpoint

log = logging.getLogger("server.main")

ENOUGH = 65_536
"""The soft limit that is asked for at most, unless more is needed: closing all of a million takes its time."""

BESIDE = 256
"""Descriptors for everything but callers, endpoints and the database: files, pipes, the admin port."""

MOST_CALLERS = 10_000
"""Maximum connections of callers: each takes some memory as well."""

FEWEST_CALLERS = 100


def needed_descriptors(settings: Settings, connections: int, endpoints: Sequence[ConfiguredEndpoint] = ()) -> int:
    """Return the maximum that a process uses with so many database connections that sends to these endpoints."""
    most = settings.endpoint_max_concurrency
    return BESIDE + connections + sum(min(most, one.endpoint.max_concurrency) for one in endpoints)


def raise_descriptor_limit(needed: int) -> int:
    """Raise the soft limit as far as the hard one allows, and return how many connections callers may have.

    What is `needed` otherwise is kept back from them. Log a warning where the limit is less than that.
    """
    soft, hard = (_number(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(max(needed, ENOUGH), hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard if hard < _UNLIMITED else resource.RLIM_INFINITY))
    allowed = max(soft, wanted)
    if allowed < needed:
        log.warning(
            "%d files and connections may be open, but up to %d may be needed: raise the hard limit (LimitNOFILE= of "
            "systemd, --ulimit nofile= of containers, ulimit -Hn), or lower MAILING_ENDPOINT_MAX_CONCURRENCY",
            allowed,
            needed,
        )
    return min(max(allowed - needed, FEWEST_CALLERS), MOST_CALLERS)


_UNLIMITED = 1 << 30


def _number(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit
