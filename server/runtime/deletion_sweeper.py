"""Finishes deletions of mailings that broke off: the service died in the middle, or the caller went away."""

from __future__ import annotations

import asyncio
import logging

from server.domain.errors import DatabaseUnavailable
from server.storage.mailing_deletion import MailingDeletion

log = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two looks; the first one comes at the start."""


async def sweep(deletion: MailingDeletion) -> None:
    """Look for leftovers and remove them, until cancelled."""
    while True:
        try:
            for mailing_id, messages in (await deletion.sweep()).items():
                told = "mailing %d was deleted before; %d messages that were left of it are removed"
                log.info(told, mailing_id, messages, extra={"mailing_id": mailing_id})
        except DatabaseUnavailable as error:
            log.warning("what deletions left cannot be removed, trying again: %r", error.__cause__)
        except Exception:
            log.exception("removing what deletions left failed")
        await asyncio.sleep(INTERVAL)
