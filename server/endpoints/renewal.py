"""Keeps the secrets of endpoints and webhooks current: files that changed, and access tokens ahead of their ends.

Polls the files. A new secret is used from the next request on; a file that became invalid or disappeared changes
nothing and is logged, and so does a change of the file that names them, which needs a restart. One task per endpoint
fetches its tokens, so there is one fetch at a time; until there is a first token nothing is sent to the endpoint and
no attempt is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dispatcher.signals import Signal
from dispatcher.tasks import happens
from server.auth.watched_file import FileWatch
from server.config.types import ConfiguredEndpoint, TokenGrant
from server.domain.webhooks import WebhookConfig
from server.endpoints.oauth2 import fetch_token
from server.endpoints.webhooks_file import ConfiguredWebhook

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the files."""

SHARE, SHORTEST = 0.8, 1.0
"""The share of a token's life after which the next one is fetched, and the seconds between two fetches at least."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before a fetch that failed is repeated; they double."""

Renew = Callable[[ConfiguredEndpoint], None]
"""Takes an endpoint with other secrets over."""


async def keep_secrets(
    configured: Sequence[ConfiguredEndpoint], *users: Renew, refused: Signal[str] | None = None
) -> None:
    """Tell `users` of every endpoint whose secrets changed, until cancelled.

    Where the endpoint that `refused` names has fetched tokens, the next one is fetched at once.
    """
    async with asyncio.TaskGroup() as group:
        for one in configured:
            keeper = _Keeper(one, users)
            if one.secret_files:
                what = f"endpoint {one.endpoint.name}"
                group.create_task(_follow(what, one.secret_files, keeper.reread), name=f"secrets of {what}")
            if one.grant is not None:
                if refused is not None:
                    refused.connect(keeper.refused)
                group.create_task(keeper.fetch_tokens(), name=f"token of {one.endpoint.name}")


async def keep_webhook_secrets(configured: Sequence[ConfiguredWebhook], renew: Callable[[WebhookConfig], None]) -> None:
    """Tell `renew` of every subscriber whose secrets changed, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for one in configured:
            if one.secret_files:
                what = f"webhook {one.config.name}"
                reread = partial(_renew_webhook, one, renew)
                group.create_task(_follow(what, one.secret_files, reread), name=f"secrets of {what}")


def _renew_webhook(one: ConfiguredWebhook, renew: Callable[[WebhookConfig], None]) -> None:
    renew(one.reread().config)


async def _follow(what: str, files: Sequence[Path], reread: Callable[[], None]) -> None:
    """Have the secrets read again whenever one of their files changed."""
    watch = FileWatch(*files)
    _use(what, reread)  # they may have changed since the start read them
    while True:
        await asyncio.sleep(CHECK_INTERVAL)
        if watch.changed() and _use(what, reread):
            log.info("%s: new secrets from %s", what, ", ".join(map(str, files)))


def _use(what: str, reread: Callable[[], None]) -> bool:
    """Have the secrets read; return whether they can be used, which ValueError denies."""
    try:
        reread()
    except ValueError:  # never shown: it may be about the secret itself
        log.error("%s: its secrets stay as they were: a file of one cannot be used", what)
        return False
    return True


class _Keeper:
    """One endpoint as its files were when they were last good, with its last token: neither takes the other back."""

    def __init__(self, one: ConfiguredEndpoint, users: Sequence[Renew]) -> None:
        self._one = one
        self._users = users
        self._token = ""
        self._hurry = asyncio.Event()

    def reread(self) -> None:
        """Take over what the files say now. Raise ValueError, and go on as before, where one cannot be used."""
        before = self._one
        try:
            self._one = before.reread()
            self._tell()
        except ValueError:
            self._one = before
            raise
        if self._one.grant != before.grant:
            self._hurry.set()

    def refused(self, endpoint: str) -> None:
        """Take note that an endpoint refuses its credentials: a token may have been taken back before its end."""
        if endpoint == self._one.endpoint.name:
            self._hurry.set()

    async def fetch_tokens(self) -> None:
        """Fetch a token, and the next one ahead of its end, or at once where it is refused or the secret is another."""
        failures = 0
        while (grant := self._one.grant) is not None:
            self._hurry.clear()
            if life := await self._fetch(grant):
                failures, wait = 0, max(SHORTEST, life * SHARE)
            else:
                failures, wait = failures + 1, min(FIRST_WAIT * 2**failures, LONGEST_WAIT)
            await asyncio.sleep(SHORTEST)  # many requests are refused at once
            await happens(self._hurry, wait - SHORTEST)

    async def _fetch(self, grant: TokenGrant) -> float:
        """Take a new token over and return for how many seconds it is good; 0 when there is none."""
        try:
            token = await fetch_token(grant, self._one.endpoint.total_timeout)
        except ValueError as error:
            log.error("endpoint %s: no token could be fetched: %s", self._one.endpoint.name, error)
            return 0.0
        self._token = token.value
        self._tell()
        return token.life

    def _tell(self) -> None:
        one = self._one
        if self._token:
            one = one._replace(endpoint=replace(one.endpoint, token=self._token, awaits_token=False))
        for user in self._users:
            user(one)
