"""Finishes deletions of mailings that broke off: the service died in the middle, or the caller went away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.domain.errors import DatabaseUnavailable
from server.store.mailing_deletion import MailingDeletion

log = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two looks; the first one comes at the start."""


@asynccontextmanager
async def sweeping(deletion: MailingDeletion, interval: float = INTERVAL) -> AsyncIterator[None]:
    """Looks for leftovers inside the block, and removes them."""
    task = asyncio.create_task(_run(deletion, interval), name="sweep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(deletion: MailingDeletion, interval: float) -> None:
    while True:
        try:
            for mailing_id, messages in (await deletion.sweep()).items():
                told = "mailing %d was deleted before; %d messages that were left of it are removed"
                log.info(told, mailing_id, messages, extra={"mailing_id": mailing_id})
        except DatabaseUnavailable as error:
            log.warning("what deletions left cannot be removed, trying again: %r", error.__cause__)
        except Exception:
            log.exception("removing what deletions left failed")
        await asyncio.sleep(interval)
