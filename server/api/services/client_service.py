"""Serves ClientService: decodes and checks requests, calls the stores, encodes answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailing.v1 import client_service_pb2 as pb
from mailing.v1.client_service_pb2_grpc import ClientServiceServicer
from server.api.encoding.client_import import check_same_options, import_options, import_response, import_rows
from server.api.encoding.clients import client_message, definition_of, updated_client_message
from server.api.encoding.filters import checked_filter
from server.api.encoding.sizes import fitted, pieces
from server.api.encoding.stories import story_response
from server.api.encoding.wellknown import changed_fields, creating_call
from server.api.handlers import Context
from server.domain.client_import import ImportRow, RowErrors
from server.domain.clients import CLIENT_FIELDS, check_client, client_key, completed
from server.domain.errors import ScopeMissing
from server.domain.pagination import PageRequest, encode_token, query_digest, resumed_key
from server.domain.principals import Scope, caller
from server.domain.resume_tokens import reached
from server.domain.validation import Violations, page_size
from server.storage.client_deletion import ClientDeletion
from server.storage.client_import import ClientImport
from server.storage.clients import ClientStore
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.stories import StoryStore

EXPORT_CHUNK = 500
"""Maximum clients per message of an export."""


class ClientService(ClientServiceServicer):
    """Clients: one by one, in pages, and as streams for import and export."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._zones = installation.zones
        self._clients = ClientStore(database, installation)
        self._deletion = ClientDeletion(database, installation)
        self._stories = StoryStore(database, installation)
        self._imports = ClientImport(database, installation)

    async def CreateClient(self, request: pb.CreateClientRequest, context: Context) -> pb.CreateClientResponse:
        """Add one client."""
        violations = Violations()
        definition = definition_of(request.client, "client", violations)
        check_client(definition, self._zones, "client", violations)
        call = creating_call("CreateClient", request.request_id, request.client, violations)
        violations.check()
        client = await self._clients.create(completed(definition), call)
        return pb.CreateClientResponse(client=client_message(client))

    async def GetClient(self, request: pb.GetClientRequest, context: Context) -> pb.GetClientResponse:
        """Return one client."""
        violations = Violations()
        key = client_key(request.client_id, request.phone, violations)
        violations.check()
        client = await self._clients.get(key)
        if request.phone:
            await self._clients.note_read(client.id, "client")
        return pb.GetClientResponse(client=client_message(client))

    async def GetClientStory(self, request: pb.GetClientStoryRequest, context: Context) -> pb.GetClientStoryResponse:
        """Return a page of all that is known of one client."""
        violations = Violations()
        key = client_key(request.client_id, request.phone, violations)
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        violations.check()
        if not caller().may(Scope.MESSAGES_READ):
            raise ScopeMissing(Scope.MESSAGES_READ)
        story = await self._stories.read(key, page)
        if story.client and not request.page_token:
            await self._clients.note_read(story.client.id, "story")
        return story_response(story)

    async def UpdateClient(self, request: pb.UpdateClientRequest, context: Context) -> pb.UpdateClientResponse:
        """Change the fields named in the mask."""
        violations = Violations()
        key = client_key(request.client.id, request.phone, violations, "client.id")
        fields = changed_fields(request.client, request.update_mask, CLIENT_FIELDS, violations)
        patch = definition_of(request.client, "client", violations, fields)
        check_client(patch, self._zones, "client", violations, fields)
        violations.check()
        _check_named(request.phone)
        client = await self._clients.update(key, request.client.etag, patch, fields, request.validate_only)
        return pb.UpdateClientResponse(client=updated_client_message(client, request.client, fields))

    async def DeleteClient(self, request: pb.DeleteClientRequest, context: Context) -> pb.DeleteClientResponse:
        """Remove one client and cancel their unsent messages."""
        violations = Violations()
        key = client_key(request.client_id, request.phone, violations)
        violations.check()
        _check_named(request.phone)
        cancelled = await self._deletion.delete(key, request.etag, request.allow_missing)
        return pb.DeleteClientResponse(cancelled_messages=cancelled)

    async def ListClients(self, request: pb.ListClientsRequest, context: Context) -> pb.ListClientsResponse:
        """Return a page of clients."""
        violations = Violations()
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        chosen = checked_filter(request, self._zones, violations)
        found = await self._clients.list_page(chosen, request.receiving_now, page)
        clients, next_token = fitted(found, client_message)
        return pb.ListClientsResponse(clients=clients, next_page_token=next_token)

    async def ImportClients(
        self, request_iterator: AsyncIterator[pb.ImportClientsRequest], context: Context
    ) -> pb.ImportClientsResponse:
        """Store the clients of the stream, all or none."""
        async with self._imports.turn():
            first = await anext(request_iterator, None)
            return await self._import(first, request_iterator) if first else pb.ImportClientsResponse()

    async def _import(
        self, first: pb.ImportClientsRequest, others: AsyncIterator[pb.ImportClientsRequest]
    ) -> pb.ImportClientsResponse:
        options, errors = import_options(first), RowErrors()
        named = pb.ImportClientsRequest()
        named.CopyFrom(first)
        named.ClearField("clients")

        async def pieces() -> AsyncIterator[Sequence[ImportRow | None]]:
            yield import_rows(first.clients, 0, self._zones, options.mask, errors)
            position = len(first.clients)
            async for request in others:
                check_same_options(request, named)
                yield import_rows(request.clients, position, self._zones, options.mask, errors)
                position += len(request.clients)

        return import_response(await self._imports.run(pieces(), options, errors), errors, options)

    async def ExportClients(
        self, request: pb.ExportClientsRequest, context: Context
    ) -> AsyncIterator[pb.ExportClientsResponse]:
        """Stream the clients of a filter."""
        chosen = checked_filter(request, self._zones, Violations())
        digest = query_digest("export clients", chosen.as_json())
        (after,) = resumed_key(request.resume_token, digest, (0,))
        reached(request.resume_token)
        async for piece in self._clients.export(chosen, after):
            for clients in pieces(map(client_message, piece), EXPORT_CHUNK):
                token = encode_token(digest, clients[-1].id)
                yield pb.ExportClientsResponse(clients=clients, resume_token=token)
                reached(token)


def _check_named(phone: str) -> None:
    """Raise ScopeMissing for a client named by phone if the caller may not know which phones there are."""
    if phone and not caller().may(Scope.CLIENTS_READ):
        raise ScopeMissing(Scope.CLIENTS_READ)
