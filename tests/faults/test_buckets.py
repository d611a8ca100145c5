"""An installation with another number of buckets than the usual one, from its first start to a finished mailing."""

from __future__ import annotations

import pytest

from mailing.v1.message_pb2 import Message
from tests.e2e.conftest import Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import finish, prepare

COUNT = 1_000


@pytest.mark.parametrize("buckets", [1, 37])
def test_everybody_gets_the_message_whatever_the_buckets(
    start_service: StartService, endpoint: Endpoint, empty_dsn: str, buckets: int
) -> None:
    """Fails where a number of buckets is taken for granted."""
    service = start_service(MAILING_DSN=empty_dsn, MAILING_BUCKETS=str(buckets))
    mailing_id = prepare(service.client, COUNT)
    ids = finish(service.client, mailing_id)
    assert sorted(one["id"] for one in endpoint.received()) == sorted(ids)
    assert len(ids) == COUNT
    clients = {client.id for client in service.client.list_clients()}
    assert ids == {mailing_id << 32 | client_id for client_id in clients}
    one = next(iter(ids))
    assert service.client.get_message(one).status == Message.STATUS_DELIVERED
    assert len({client_id % buckets for client_id in clients}) == buckets
    changes = service.client.watch_messages(mailing_id, from_start=True)
    assert {next(changes).message_id for _ in range(COUNT)} == ids
    assert service.stop() == 0
