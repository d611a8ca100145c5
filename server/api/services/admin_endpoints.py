"""ListEndpoints and ProbeEndpoint: which endpoints there are, and how they are doing."""

from __future__ import annotations

from dispatcher.model.records import Endpoint
from mailing.v1 import admin_service_pb2 as pb
from mailing.v1 import dispatch_pb2
from server.api.encoding.messages import attempt_message
from server.domain.endpoints import EndpointHealth
from server.endpoints.dns_check import DnsCheck
from server.endpoints.probes import EndpointProbes
from server.storage.endpoints import EndpointStore


class EndpointCalls:
    """Answers the calls about endpoints."""

    def __init__(self, store: EndpointStore, probes: EndpointProbes) -> None:
        self._store = store
        self._probes = probes
        self._dns = DnsCheck(probes.endpoints)

    async def list(self, request: pb.ListEndpointsRequest) -> pb.ListEndpointsResponse:
        """Return every endpoint, in the order of their names."""
        endpoints = self._probes.endpoints
        health = await self._store.health([endpoint.name for endpoint in endpoints])
        unresolved = await self._dns.failures()
        return pb.ListEndpointsResponse(
            endpoints=[_message(one, health[one.name], unresolved.get(one.name, "")) for one in endpoints]
        )

    async def probe(self, request: pb.ProbeEndpointRequest) -> pb.ProbeEndpointResponse:
        """Make one request to an endpoint and tell how it ended."""
        trial = await self._probes.probe(request.endpoint)
        return pb.ProbeEndpointResponse(attempt=attempt_message(trial.attempt), message_id=trial.message_id)


def _message(endpoint: Endpoint, health: EndpointHealth, unresolved: str) -> dispatch_pb2.Endpoint:
    """Return an endpoint as its message; what is wrong with its host now says more than an older error."""
    return dispatch_pb2.Endpoint(
        name=endpoint.name,
        url=endpoint.shown_url,
        max_rate=endpoint.max_rate,
        max_concurrency=endpoint.max_concurrency,
        status=dispatch_pb2.EndpointStatus(
            name=endpoint.name,
            breaker=dispatch_pb2.EndpointStatus.Breaker.ValueType(health.breaker),
            last_error=unresolved or health.last_error,
        ),
    )
