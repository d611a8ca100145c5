"""Reads the story of one client: a page of their messages, by the readers of messages, and what belongs to them.

Every look-up is by a key: the client's bucket, and the mailings of the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import asyncpg

from dispatcher.model.endpoints import endpoint_name
from dispatcher.model.states import MailingState
from server.domain.clients import ClientKey
from server.domain.errors import Kind, NotFound
from server.domain.events import RecordedEvent
from server.domain.messages import Attempt, Message, MessageQuery
from server.domain.pagination import Page, PageRequest
from server.domain.stories import MAX_EVENTS, Story, StoryPart
from server.storage.clients import ClientStore
from server.storage.database import Database
from server.storage.events import event_of
from server.storage.installation import Installation
from server.storage.messages import MessageStore, attempt_of
from server.storage.queries import load_queries

_SQL = load_queries("stories.sql")


class StoryStore:
    """Reads stories. May raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._clients = ClientStore(database, installation)
        self._messages = MessageStore(database, installation)

    async def read(self, key: ClientKey, page: PageRequest) -> Story:
        """Return a page of the client's story. Raise InvalidPageToken, PhoneUnknown, and NotFound for an unknown id."""
        client = await self._clients.look_up(key)
        client_id = client.id if client else int(key)
        found = await self._messages.list_page(MessageQuery(client=client_id), page)
        bucket = self._installation.bucket_of_client(client_id)
        async with self._database.connection() as connection:
            events = [] if page.token else await _events(connection, bucket, client_id)
            parts = await _parts(connection, bucket, found.records)
        if not (client or parts or events):
            raise NotFound(Kind.CLIENT, client_id)
        return Story(
            client, Page(tuple(parts), lambda part: found.token_behind(part.message), found.next_token), events
        )


async def _events(connection: asyncpg.Connection, bucket: int, client_id: int) -> list[RecordedEvent]:
    statement = _SQL["list_client_events"].bind(bucket=bucket, client_id=client_id, most=MAX_EVENTS)
    return [event_of(row) for row in reversed(await connection.fetch(*statement))]


async def _parts(connection: asyncpg.Connection, bucket: int, messages: Sequence[Message]) -> list[StoryPart]:
    if not messages:
        return []
    ids = [message.mailing_id for message in messages]
    mailings = {row["id"]: row for row in await connection.fetch(*_SQL["list_titles"].bind(ids=ids))}
    attempts = await _attempts(connection, bucket, messages)
    return [
        StoryPart(
            message, row["title"], MailingState(row["state"]), endpoint_name(row["endpoint"]), attempts[row["id"]]
        )
        for message in messages
        if (row := mailings.get(message.mailing_id))
    ]


async def _attempts(
    connection: asyncpg.Connection, bucket: int, messages: Sequence[Message]
) -> dict[int, list[Attempt]]:
    """Return the failed attempts by mailing; messages without any attempt are not looked up."""
    ids = [message.mailing_id for message in messages if message.attempts]
    statement = _SQL["list_attempts_of_client"].bind(bucket=bucket, client_id=messages[0].client_id, ids=ids)
    found = defaultdict[int, list[Attempt]](list)
    for row in await connection.fetch(*statement):
        found[row["mailing_id"]].append(attempt_of(row))
    return found
