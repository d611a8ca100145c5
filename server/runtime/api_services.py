"""The API's services on one database: which stores each is made of, and what their writes wake."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from server.api import ApiServer, Services, build_server
from server.api.encoding.changes import encoded_mailing
from server.api.encoding.schedules import TEMPLATES
from server.api.services import (
    AdminService,
    AdminStores,
    ClientService,
    DeliveryService,
    MailingService,
    MessageService,
    ScheduleService,
    SegmentService,
)
from server.endpoints.probes import EndpointProbes
from server.runtime.access import Access
from server.runtime.api_settings import ApiSettings
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database
from server.storage.endpoints import EndpointStore
from server.storage.events import EventStore
from server.storage.installation import Installation, read_installation
from server.storage.mailings import MailingStore, ProgressStore
from server.storage.previews import PreviewStore
from server.storage.replicas import ReplicaStore
from server.storage.schedules import ScheduleStore
from server.storage.verification import Verification
from server.watch import Streams, StreamStores
from server.webhooks import Webhooks


async def build_api(
    database: Database,
    probes: EndpointProbes,
    settings: ApiSettings,
    access: Access,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    hint: Callable[[], None],
    webhooks: Webhooks | None = None,
    hint_schedules: Callable[[], None] = lambda: None,
) -> ApiServer:
    """Return the API on a database, not yet bound.

    `hint` is called after every write that a dispatcher in this process should see at once, `hint_schedules` after
    one that makes a schedule due sooner. Reading the installation takes some 100 ms. Raise DatabaseUnavailable.
    """
    installation = await read_installation(database)
    stores = _stream_stores(database.service, installation, settings, hint)
    streams = Streams(stores, installation.epoch, encoded_mailing, settings.streams)
    previews = PreviewStore(
        database,
        settings.frequency_cap,
        probes.rates,
        settings.dispatch.max_sms_segments,
        probes.forms,
        probes.day_limits,
    )

    def changed() -> None:
        hint()
        streams.hint()

    def scheduled() -> None:
        changed()
        hint_schedules()

    mailings = MailingService(database, installation, changed, previews, probes)
    services = Services(
        ClientService(database, installation),
        mailings,
        MessageService(database, installation),
        SegmentService(database, installation, changed),
        DeliveryService(streams, stores.progress),
        ScheduleService(
            ScheduleStore(database, installation, TEMPLATES, scheduled),
            MailingStore(database, installation, changed),
            installation,
            mailings.check_names,
        ),
        AdminService(
            AdminStores(stores.replicas, EndpointStore(database), Verification(database)),
            streams,
            probes,
            settings.release,
            webhooks,
        ),
    )
    return await build_server(
        services, streams, interceptors, settings.transport, access.credentials, access.reflection
    )


def _stream_stores(
    database: Database, installation: Installation, settings: ApiSettings, hint: Callable[[], None]
) -> StreamStores:
    return StreamStores(
        progress=ProgressStore(database),
        change_feed=ChangeFeedStore(database, installation.buckets),
        replicas=ReplicaStore(database, settings.dispatch, hint),
        events=EventStore(database, installation.buckets),
    )
