"""Takes over secrets whose files changed: a token that was written anew is used from the next request on.

Polls the files. Only what requests say changes: a file that became invalid or disappeared changes nothing and is
logged, and so is a change of the endpoints file itself, which needs a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from dispatcher.model.endpoints import Endpoint
from server.auth.watched_file import FileWatch
from server.config.types import ConfiguredEndpoint

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the files."""

Renew = Callable[[Endpoint], None]
"""Takes an endpoint with other secrets over."""


async def renew_secrets(configured: Sequence[ConfiguredEndpoint], *users: Renew) -> None:
    """Tell `users` of every endpoint whose secrets changed, until cancelled."""
    watched = [(one, FileWatch(*one.secret_files)) for one in configured if one.secret_files]
    while watched:
        await asyncio.sleep(CHECK_INTERVAL)
        for one, watch in watched:
            if watch.changed():
                _renew(one, users)


def _renew(one: ConfiguredEndpoint, users: Sequence[Renew]) -> None:
    name = one.endpoint.name
    try:
        endpoint = one.reread()
        for user in users:
            user(endpoint)
    except ValueError:  # never shown: it may be about the secret itself
        log.error("endpoint %s: its secrets stay as they were: a file of one cannot be used", name)
    else:
        log.info("endpoint %s: new secrets from %s", name, ", ".join(str(path) for path in one.secret_files))
