"""Cleans up once an hour.

Deletions of mailings that were interrupted, because the service died or the caller disconnected, are
completed; phones that have been remembered for long enough are forgotten. Warns when client numbers run out.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from server.domain.errors import DatabaseUnavailable
from server.storage.client_numbers import share_used
from server.storage.database import Database
from server.storage.mailing_deletion import MailingDeletion
from server.storage.phone_memory import forget_old

ALARMING_SHARE = 0.8
"""The share of client numbers from which on the log warns once an hour."""

log = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two scans; the first one runs at the start."""


async def sweep(deletion: MailingDeletion) -> None:
    """Remove what interrupted deletions left, until cancelled."""
    while True:
        try:
            for mailing_id, messages in (await deletion.sweep()).items():
                text = "the deletion of mailing %d was completed; %d messages were left of it"
                log.info(text, mailing_id, messages, extra={"mailing_id": mailing_id})
        except DatabaseUnavailable as error:
            log.warning("interrupted deletions cannot be completed, trying again: %r", error.__cause__)
        except Exception:
            log.exception("completing interrupted deletions failed")
        await asyncio.sleep(INTERVAL)


async def tend_clients(database: Database, keep: timedelta) -> None:
    """Forget phones of deleted clients that have been remembered for longer than `keep`, until cancelled.

    Warn when few client numbers are left.
    """
    while True:
        try:
            await forget_old(database, keep)
            await warn_of_few_numbers(database)
        except DatabaseUnavailable as error:
            log.warning("phones that were remembered cannot be forgotten, trying again: %r", error.__cause__)
        except Exception:
            log.exception("forgetting phones that were remembered failed")
        await asyncio.sleep(INTERVAL)


async def warn_of_few_numbers(database: Database) -> None:
    """Log a warning when most of the client numbers were given. Raise DatabaseUnavailable."""
    async with database.connection() as connection:
        used = await share_used(connection)
    if used >= ALARMING_SHARE:
        text = "%.1f%% of all client numbers were given; when there are none left no client can be added"
        log.warning(text, 100 * used, extra={"numbers_used": used})
