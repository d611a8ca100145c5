"""Cleans up once an hour.

Deletions of mailings that were interrupted, because the service died or the caller disconnected, are
completed; phones that have been remembered for long enough are forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from server.domain.errors import DatabaseUnavailable
from server.storage.database import Database
from server.storage.mailing_deletion import MailingDeletion
from server.storage.phone_memory import forget_old

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


async def forget_phones(database: Database, keep: timedelta) -> None:
    """Forget phones of deleted clients that have been remembered for longer than `keep`, until cancelled."""
    while True:
        try:
            await forget_old(database, keep)
        except DatabaseUnavailable as error:
            log.warning("phones that were remembered cannot be forgotten, trying again: %r", error.__cause__)
        except Exception:
            log.exception("forgetting phones that were remembered failed")
        await asyncio.sleep(INTERVAL)
