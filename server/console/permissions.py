"""What a person may do, so that pages leave out buttons that the API would refuse.

The API has no method that says so. It checks the scope before it reads a request; so a request that reads little, or
is invalid on purpose and changes nothing, tells: a caller without the scope gets PERMISSION_DENIED. Pages are drawn by
this: each change is judged by the API again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc

from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import GetDispatchRequest, UpdateDispatchSettingsRequest
from mailing.v1.client_service_pb2 import DeleteClientRequest, GetClientRequest
from mailing.v1.mailing_service_pb2 import GetMailingRequest, PauseMailingRequest
from mailing.v1.message_service_pb2 import GetMessageRequest
from server.console.service import Credentials, Service

REMEMBERED = 30.0
"""Seconds after which the scopes of a token are asked for again."""

_MOST = 1000


@dataclass(frozen=True, slots=True)
class May:
    """The scopes of a person; the names are those of the API with `_` for the dot."""

    clients_read: bool = False
    clients_write: bool = False
    mailings_read: bool = False
    mailings_write: bool = False
    messages_read: bool = False
    admin_read: bool = False
    admin: bool = False


class Permissions:
    """Finds out scopes, and remembers them for a while."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, tuple[float, May]] = {}

    async def of(self, who: Credentials) -> May:
        """Return what these credentials allow. Raise MailingError where the service is away or refuses them."""
        known = self._known.get(who.digest)
        if known and monotonic() < known[0]:
            return known[1]
        try:
            may = await self._ask(who)
        except MailingError as error:
            if known and error.code is not grpc.StatusCode.UNAUTHENTICATED:
                return known[1]
            raise
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[who.digest] = monotonic() + REMEMBERED, may
        return may

    async def _ask(self, who: Credentials) -> May:
        service = self._service
        tries: list[tuple[Any, Any]] = [
            (service.clients.GetClient, GetClientRequest()),
            (service.clients.DeleteClient, DeleteClientRequest()),
            (service.mailings.GetMailing, GetMailingRequest()),
            (service.mailings.PauseMailing, PauseMailingRequest()),
            (service.messages.GetMessage, GetMessageRequest()),
            (service.admin.GetDispatch, GetDispatchRequest()),
            (service.admin.UpdateDispatchSettings, UpdateDispatchSettingsRequest()),
        ]
        return May(*await asyncio.gather(*(_allowed(service.call(method, request, who)) for method, request in tries)))


async def _allowed(call: Awaitable[Any]) -> bool:
    """Return whether the scope is there. Raise MailingError for what says nothing about it."""
    try:
        await call
    except MailingError as error:
        if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE):
            raise
        return error.code is not grpc.StatusCode.PERMISSION_DENIED
    return True
