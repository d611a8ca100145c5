"""Completes deletions of mailings that were interrupted: the service died, or the caller disconnected."""

from __future__ import annotations

import asyncio
import logging

from server.domain.errors import DatabaseUnavailable
from server.storage.mailing_deletion import MailingDeletion

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
