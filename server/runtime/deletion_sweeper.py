"""Cleans up in the background.

Messages of deleted mailings, and those that were kept long enough, are removed. Once an hour, what has been
remembered of phones and of request ids for long enough is forgotten. Warns when client numbers run out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

from server.domain.errors import DatabaseUnavailable
from server.storage.client_numbers import share_used
from server.storage.database import Database
from server.storage.phone_memory import forget_old
from server.storage.removals import Removals
from server.storage.request_ids import forget_old_requests

ALARMING_SHARE = 0.8
"""The share of client numbers from which on the log warns once an hour."""

log = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two scans; the first one runs at the start."""

REMOVAL_INTERVAL = 5.0
"""Seconds between two looks for messages that are to go."""

REQUEST_MEMORY = timedelta(days=7)
"""How long a repeated creating call is recognized by its request id."""


async def sweep(removals: Removals) -> None:
    """Remove the messages that are to go, those of interrupted calls included, until cancelled."""
    adopt_at = 0.0
    while True:
        try:
            if time.monotonic() >= adopt_at:
                await removals.adopt_leftovers()
                adopt_at = time.monotonic() + INTERVAL
            for mailing_id in await removals.pending():
                removed = await removals.remove(mailing_id)
                if not removed.remaining:
                    text = "the last %d messages of mailing %d that were to go are removed"
                    log.info(text, removed.messages, mailing_id, extra={"mailing_id": mailing_id})
        except DatabaseUnavailable as error:
            log.warning("messages past their retention cannot be removed, trying again: %r", error.__cause__)
        except Exception:
            log.exception("removing messages past their retention failed")
        await asyncio.sleep(REMOVAL_INTERVAL)


async def tend_clients(database: Database, keep: timedelta) -> None:
    """Forget phones of deleted clients that have been remembered for longer than `keep`, until cancelled.

    Forget request ids of creating calls, too, and warn when few client numbers are left.
    """
    while True:
        try:
            await forget_old(database, keep)
            await forget_old_requests(database, REQUEST_MEMORY)
            await warn_of_few_numbers(database)
        except DatabaseUnavailable as error:
            log.warning(
                "what was remembered of phones and requests cannot be forgotten, trying again: %r", error.__cause__
            )
        except Exception:
            log.exception("removing expired records failed")
        await asyncio.sleep(INTERVAL)


async def warn_of_few_numbers(database: Database) -> None:
    """Log a warning when most of the client numbers were given. Raise DatabaseUnavailable."""
    async with database.connection() as connection:
        used = await share_used(connection)
    if used >= ALARMING_SHARE:
        text = "%.1f%% of all client numbers were given; when there are none left no client can be added"
        log.warning(text, 100 * used, extra={"numbers_used": used})
