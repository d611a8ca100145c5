"""Which scope each method needs: the one table. Nobody may call a method that is not in it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from server.domain.principals import Scope


class Public(Enum):
    """In place of a scope: everybody may call the method, without credentials."""

    PUBLIC = "public"


_METHODS: Mapping[str, Mapping[Scope | Public, str]] = {
    "mailing.v1.ClientService": {
        Scope.CLIENTS_READ: "GetClient GetClientStory ListClients ExportClients",
        Scope.CLIENTS_WRITE: "CreateClient UpdateClient DeleteClient ImportClients",
    },
    "mailing.v1.MailingService": {
        Scope.MAILINGS_READ: "GetMailing ListMailings PreviewMailing GetMailingReport",
        Scope.MAILINGS_WRITE: "CreateMailing UpdateMailing DeleteMailing PauseMailing ResumeMailing CancelMailing "
        "RetryMailing SendTestMessage",
    },
    "mailing.v1.MessageService": {Scope.MESSAGES_READ: "GetMessage ListMessages ListAttempts ExportMessages"},
    "mailing.v1.DeliveryService": {Scope.MAILINGS_READ: "WatchMailing", Scope.MESSAGES_READ: "WatchMessages"},
    "mailing.v1.ScheduleService": {
        Scope.MAILINGS_READ: "GetSchedule ListSchedules",
        Scope.MAILINGS_WRITE: "CreateSchedule UpdateSchedule DeleteSchedule PauseSchedule ResumeSchedule "
        "TriggerSchedule",
    },
    "mailing.v1.SegmentService": {
        Scope.CLIENTS_READ: "GetSegment ListSegments PreviewSegment",
        Scope.CLIENTS_WRITE: "CreateSegment UpdateSegment DeleteSegment",
    },
    "mailing.v1.AdminService": {
        Scope.ADMIN_READ: "GetDispatch WatchDispatch ListEndpoints WatchLog GetServerInfo ListWebhooks VerifyLedger",
        Scope.ADMIN: "UpdateDispatchSettings PauseDispatch ResumeDispatch ProbeEndpoint TestWebhook",
    },
    # For load balancers; it says nothing but SERVING and NOT_SERVING.
    "grpc.health.v1.Health": {Public.PUBLIC: "Check Watch List"},
    # Where it is served at all. It shows the published contract and nothing else.
    "grpc.reflection.v1.ServerReflection": {Public.PUBLIC: "ServerReflectionInfo"},
    "grpc.reflection.v1alpha.ServerReflection": {Public.PUBLIC: "ServerReflectionInfo"},
}

PERMISSIONS: Mapping[str, Scope | Public] = {
    f"/{service}/{method}": needed
    for service, methods in _METHODS.items()
    for needed, names in methods.items()
    for method in names.split()
}
"""The scope of each method, by its path."""

PARTLY: Mapping[str, Scope] = {"/mailing.v1.AdminService/WatchLog": Scope.MAILINGS_READ}
"""Scopes with which a method may be called as well, which then looks at its request: the log of one mailing."""
