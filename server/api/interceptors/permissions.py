"""Which scope opens which method: the one table. A method that is not in it is open to nobody."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from server.domain.principals import Scope


class Access(Enum):
    """What needs no scope and no credentials."""

    OPEN = "open"


_METHODS: Mapping[str, Mapping[Scope | Access, str]] = {
    "mailing.v1.ClientService": {
        Scope.CLIENTS_READ: "GetClient ListClients ExportClients",
        Scope.CLIENTS_WRITE: "CreateClient UpdateClient DeleteClient ImportClients",
    },
    "mailing.v1.MailingService": {
        Scope.MAILINGS_READ: "GetMailing ListMailings PreviewMailing GetMailingReport",
        Scope.MAILINGS_WRITE: "CreateMailing UpdateMailing DeleteMailing PauseMailing ResumeMailing CancelMailing "
        "RetryMailing SendTestMessage",
    },
    "mailing.v1.MessageService": {Scope.MESSAGES_READ: "GetMessage ListMessages ListAttempts"},
    "mailing.v1.DeliveryService": {Scope.MAILINGS_READ: "WatchMailing", Scope.MESSAGES_READ: "WatchMessages"},
    "mailing.v1.AdminService": {
        Scope.ADMIN: "GetDispatch WatchDispatch UpdateDispatchSettings PauseDispatch ResumeDispatch "
        "ListEndpoints ProbeEndpoint WatchLog",
    },
    # What load balancers ask; it tells nothing but SERVING and NOT_SERVING.
    "grpc.health.v1.Health": {Access.OPEN: "Check Watch List"},
    # Where it is served at all. It tells what the published contract tells.
    "grpc.reflection.v1.ServerReflection": {Access.OPEN: "ServerReflectionInfo"},
    "grpc.reflection.v1alpha.ServerReflection": {Access.OPEN: "ServerReflectionInfo"},
}

PERMISSIONS: Mapping[str, Scope | Access] = {
    f"/{service}/{method}": needed
    for service, methods in _METHODS.items()
    for needed, names in methods.items()
    for method in names.split()
}
"""What each method needs, by its path."""
