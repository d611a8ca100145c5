"""Serves AdminService: what operators see of dispatchers, endpoints and the event log, and what they set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from mailing.v1 import admin_service_pb2 as pb
from mailing.v1 import dispatch_pb2
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from server.api.encoding.events import event_message, event_query
from server.api.encoding.messages import attempt_message
from server.api.encoding.replicas import endpoint_message, overrides_of, replica_message, settings_message
from server.api.encoding.sizes import pieces
from server.api.encoding.webhooks import webhook_attempt, webhook_message
from server.api.encoding.wellknown import IntervalRange, changed_fields
from server.api.handlers import Context
from server.api.services.ledger_audit import audit_responses
from server.domain.change_feed import ChangeQuery
from server.domain.errors import ReaderTooSlow, ScopeMissing, ShuttingDown, WebhookUnknown
from server.domain.events import endpoint_probed
from server.domain.principals import Scope, caller
from server.domain.replicas import OVERRIDE_FIELDS, RuntimeSettings, check_overrides
from server.domain.resume_tokens import reached
from server.domain.server_info import Release
from server.domain.validation import Violations
from server.endpoints.dns_check import DnsCheck
from server.endpoints.probes import EndpointProbes
from server.storage.endpoints import EndpointStore
from server.storage.replicas import ReplicaStore
from server.storage.verification import Verification
from server.watch import EventBatch, Streams
from server.webhooks import Webhooks

INTERVALS = IntervalRange(default=1.0, shortest=0.1, longest=3600.0, words="100 ms to 1 hour")
"""Intervals of WatchDispatch."""


@dataclass(frozen=True, slots=True)
class AdminStores:
    """What AdminService reads and writes."""

    replicas: ReplicaStore
    endpoints: EndpointStore
    verification: Verification


class AdminService(AdminServiceServicer):
    """Replicas and their settings, endpoints, the event log, and the audit of the ledger."""

    def __init__(
        self,
        stores: AdminStores,
        streams: Streams,
        probes: EndpointProbes,
        release: Release,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._replicas = stores.replicas
        self._endpoints = stores.endpoints
        self._verification = stores.verification
        self._streams = streams
        self._probes = probes
        self._release = release
        self._dns = DnsCheck(probes.endpoints)

    async def GetDispatch(self, request: pb.GetDispatchRequest, context: Context) -> pb.GetDispatchResponse:
        """Return every replica and the settings."""
        state = await self._replicas.read()
        return pb.GetDispatchResponse(
            replicas=map(replica_message, state.replicas), settings=self._settings(state.runtime_settings)
        )

    async def WatchDispatch(
        self, request: pb.WatchDispatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchDispatchResponse]:
        """Stream every replica and the settings."""
        violations = Violations()
        interval = INTERVALS.of(request, violations)
        violations.check()
        async with aclosing(self._streams.replicas(interval)) as states:
            async for state in states:
                yield pb.WatchDispatchResponse(
                    replicas=map(replica_message, state.replicas), settings=self._settings(state.runtime_settings)
                )

    async def UpdateDispatchSettings(
        self, request: pb.UpdateDispatchSettingsRequest, context: Context
    ) -> pb.UpdateDispatchSettingsResponse:
        """Change the settings named in the mask."""
        violations = Violations()
        if not request.HasField("settings"):
            violations.add("settings", "is required: the new values")
        fields = changed_fields(request.settings, request.update_mask, OVERRIDE_FIELDS, violations)
        patch = overrides_of(request.settings, violations)
        check_overrides(patch, violations, fields)
        violations.check()
        return pb.UpdateDispatchSettingsResponse(settings=self._settings(await self._replicas.update(patch, fields)))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Return versions, and the settings in force without secrets."""
        found = await self._replicas.database_versions()
        settings = [pb.GetServerInfoResponse.Setting(**one._asdict()) for one in self._release.settings]
        return pb.GetServerInfoResponse(
            version=self._release.version,
            schema_version=found.schema,
            database_version=found.server,
            settings=settings,
        )

    async def PauseDispatch(self, request: pb.PauseDispatchRequest, context: Context) -> pb.PauseDispatchResponse:
        """Stop all sending."""
        return pb.PauseDispatchResponse(settings=self._settings(await self._replicas.pause()))

    async def ResumeDispatch(self, request: pb.ResumeDispatchRequest, context: Context) -> pb.ResumeDispatchResponse:
        """Resume sending."""
        return pb.ResumeDispatchResponse(settings=self._settings(await self._replicas.resume()))

    def _settings(self, runtime: RuntimeSettings) -> dispatch_pb2.DispatchSettings:
        return settings_message(runtime.in_force(self._replicas.started_with), runtime.paused)

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        """Return every configured endpoint with its health, in the order of their names."""
        endpoints = self._probes.endpoints
        health = await self._endpoints.health([endpoint.name for endpoint in endpoints])
        sent = await self._endpoints.sent_today(self._probes.day_limits)
        unresolved = await self._dns.failures()
        return pb.ListEndpointsResponse(
            endpoints=[
                endpoint_message(one, health[one.name], unresolved.get(one.name, ""), sent.get(one.name, 0))
                for one in endpoints
            ]
        )

    async def ProbeEndpoint(self, request: pb.ProbeEndpointRequest, context: Context) -> pb.ProbeEndpointResponse:
        """Make one request to an endpoint and return how it ended."""
        result = await self._probes.probe(request.endpoint)
        error = result.attempt.error_class
        await self._endpoints.note(endpoint_probed(result.attempt.endpoint, error.name if error else ""))
        return pb.ProbeEndpointResponse(attempt=attempt_message(result.attempt), message_id=result.message_id)

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Context) -> pb.ListWebhooksResponse:
        """Return every configured webhook with its position, in the order of their names."""
        configs = self._webhooks.configs if self._webhooks else {}
        statuses = await self._webhooks.store.statuses(list(configs)) if self._webhooks and configs else {}
        tokens = self._streams.tokens(ChangeQuery(include_receipts=True))
        return pb.ListWebhooksResponse(
            webhooks=[webhook_message(configs[name], statuses.get(name), tokens) for name in sorted(configs)]
        )

    async def TestWebhook(self, request: pb.TestWebhookRequest, context: Context) -> pb.TestWebhookResponse:
        """Send one event to a webhook and return how the request ended."""
        configs = self._webhooks.configs if self._webhooks else {}
        if self._webhooks is None or request.webhook not in configs:
            raise WebhookUnknown(request.webhook, configs)
        began_at = datetime.now(UTC)
        identity, answer = await self._webhooks.test(request.webhook)
        return pb.TestWebhookResponse(attempt=webhook_attempt(request.webhook, began_at, answer), webhook_id=identity)

    async def WatchLog(self, request: pb.WatchLogRequest, context: Context) -> AsyncIterator[pb.WatchLogResponse]:
        """Stream the event log until the caller cancels."""
        query = event_query(request)
        if not (query.about_mailing or caller().may(Scope.ADMIN_READ)):
            raise ScopeMissing(Scope.ADMIN_READ)
        tokens, token, begun = self._streams.tokens(query), request.resume_token, False
        reached(token)
        try:
            async with aclosing(self._streams.events(query, token)) as batches:
                async for batch in batches:
                    if not begun:
                        # Apart from the first page, which may not fit: without this gRPC could not even say so.
                        await context.send_initial_metadata(())
                        begun = True
                    after = tokens.encode(batch.positions, batch.timeline)
                    for response in _responses(batch, token, after):
                        yield response
                    token = after
                    reached(token)
        except (ReaderTooSlow, ShuttingDown) as end:
            raise type(end)(token) from None

    async def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, context: Context
    ) -> AsyncIterator[pb.VerifyLedgerResponse]:
        """Stream what disagrees in the records."""
        async with aclosing(audit_responses(self._verification, request)) as responses:
            async for response in responses:
                yield response


def _responses(batch: EventBatch, before: str, after: str) -> Iterator[pb.WatchLogResponse]:
    """Yield a batch, cut by bytes: only the token of the last response is behind it."""
    if not batch.entries:
        yield pb.WatchLogResponse(resume_token=after, checkpoint=True)
        return
    *earlier, last = pieces(map(event_message, batch.entries), len(batch.entries))
    for entries in earlier:
        yield pb.WatchLogResponse(entries=entries, resume_token=before)
    yield pb.WatchLogResponse(entries=last, resume_token=after)
