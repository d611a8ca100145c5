"""Opens the receipts listener, where it is configured, for the time of a block."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from server.config import Settings, split_address
from server.config.types import ConfiguredEndpoint
from server.endpoints.renewal import Renew
from server.observability.metrics.samples import Samples
from server.receipts.app import ReceiptsApp, Sources
from server.receipts.listener import ReceiptsListener
from server.receipts.writer import ReceiptWriter
from server.storage.database import Database
from server.storage.installation import read_installation
from server.storage.opt_outs import OptOutStore
from server.storage.receipts import ReceiptStore

log = logging.getLogger(__name__)


class ReceiptsService(NamedTuple):
    """What the receipts listener did so far, and what gives it the secrets of an endpoint as they are now."""

    samples: Callable[[], Samples] = dict
    renew: Renew = lambda one: None


class CannotOpenReceipts(Exception):
    """The receipts listener cannot be opened. `str()` of it is a sentence for people."""


@asynccontextmanager
async def serving_receipts(
    settings: Settings, configured: Sequence[ConfiguredEndpoint], database: Database
) -> AsyncIterator[ReceiptsService]:
    """Serve receipts inside the block, where they are to be. Raise CannotOpenReceipts."""
    if settings.receipts_listen == "off":
        yield ReceiptsService()
        return
    installation = await read_installation(database)
    writer, opt_outs = ReceiptWriter(ReceiptStore(database, installation)), OptOutStore(database, installation)
    sources = Sources(
        {one.endpoint.name: one.receipts for one in configured if one.receipts is not None},
        {one.endpoint.name: one.inbound for one in configured if one.inbound is not None},
    )
    app = ReceiptsApp(sources, writer, opt_outs, (settings.receipts_url or "").rstrip("/"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(writer.running())
        await _listen(stack, settings, app)
        yield ReceiptsService(app.samples, app.renew)


async def _listen(stack: AsyncExitStack, settings: Settings, app: ReceiptsApp) -> None:
    certificate = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        certificate = settings.tls_cert_file, settings.tls_key_file
    listener = ReceiptsListener(app, certificate)
    host, port = split_address(settings.receipts_listen)
    try:
        port = await listener.start(host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CannotOpenReceipts(
            f"Cannot listen on {settings.receipts_listen} (MAILING_RECEIPTS_LISTEN): {reason}."
        ) from error
    stack.push_async_callback(listener.stop)
    log.info("receipts are taken on %s://%s:%d", "https" if certificate else "http", host, port)
