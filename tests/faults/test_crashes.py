"""Dead and doubled services: everything is delivered, and what was in flight has the same id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mailing.v1.message_pb2 import Message
from tests.e2e.conftest import Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import COUNT, completed, finish, prepare
from tests.support.eventually import eventually_sync


def test_a_service_killed_in_the_middle_loses_nothing(
    start_service: StartService, endpoint: Endpoint, tmp_path: Path
) -> None:
    data = {"MAILING_DSN": "", "MAILING_DATA_DIR": str(tmp_path / "data")}
    first = start_service(**data)
    mailing = prepare(first.client)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 4)
    first.kill()
    before = Counter(one["id"] for one in endpoint.received())
    assert len(before) < COUNT

    second = start_service(**data)
    ids = finish(second.client, mailing)
    received = Counter(one["id"] for one in endpoint.received())
    assert received.keys() == ids
    assert len(ids) == COUNT
    # Twice only what the dead process had sent or was sending and had not recorded: never
    # more than the batches it held.
    repeated = [message_id for message_id, times in received.items() if times > 1]
    assert set(received.values()) <= {1, 2}
    assert set(repeated) <= before.keys()
    assert len(repeated) <= 10 * 500
    assert second.stop() == 0


def test_a_closed_terminal_repeats_nothing(start_service: StartService, endpoint: Endpoint, tmp_path: Path) -> None:
    """Fails when SIGHUP, once or twice, ends the service or its Postgres without settling."""
    data = {"MAILING_DSN": "", "MAILING_DATA_DIR": str(tmp_path / "data")}
    first = start_service(**data)
    mailing = prepare(first.client)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 4)
    assert first.hang_up() == 0
    assert len(endpoint.received()) < COUNT

    second = start_service(**data)
    ids = finish(second.client, mailing)
    assert Counter(one["id"] for one in endpoint.received()) == dict.fromkeys(ids, 1)
    assert second.stop() == 0


def test_at_most_once_a_service_killed_in_the_middle_repeats_nothing(
    start_service: StartService, endpoint: Endpoint, tmp_path: Path
) -> None:
    """At its rate some batches are always under way, so that some messages are in doubt."""
    data = {"MAILING_DSN": "", "MAILING_DATA_DIR": str(tmp_path / "data")}
    first = start_service(**data)
    mailing = prepare(first.client, at_most_once=True, max_rate=COUNT / 8)
    eventually_sync(lambda: first.client.get_mailing(mailing).progress.total, lambda total: total == COUNT)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 8)
    first.kill()

    second = start_service(**data)
    completed(second.client, mailing)
    received = Counter(one["id"] for one in endpoint.received())
    assert set(received.values()) == {1}
    messages = {message.id: message.status for message in second.client.list_messages(mailing_id=mailing)}
    assert len(messages) == COUNT
    assert set(messages.values()) == {Message.STATUS_DELIVERED, Message.STATUS_UNKNOWN}
    delivered = {one for one, status in messages.items() if status == Message.STATUS_DELIVERED}
    unknown = messages.keys() - delivered
    assert delivered <= received.keys() <= delivered | unknown
    assert second.stop() == 0


def test_two_services_share_one_mailing(start_service: StartService, endpoint: Endpoint) -> None:
    first, second = start_service(), start_service()
    ids = finish(second.client, prepare(first.client))
    assert Counter(one["id"] for one in endpoint.received()) == Counter(dict.fromkeys(ids, 1))
    assert len(ids) == COUNT
    assert first.stop() == 0


def test_a_service_that_takes_over_from_a_dead_one_finishes_its_batches(
    start_service: StartService, endpoint: Endpoint
) -> None:
    short = {"MAILING_LEASE": "4", "MAILING_ENDPOINT_TIMEOUT": "0.5"}
    first, second = start_service(**short), start_service(**short)
    mailing = prepare(first.client)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 4)
    first.kill()
    ids = finish(second.client, mailing)
    received = Counter(one["id"] for one in endpoint.received())
    assert received.keys() == ids
    assert set(received.values()) <= {1, 2}


def test_a_service_stopped_in_order_repeats_nothing(start_service: StartService, endpoint: Endpoint) -> None:
    first = start_service()
    mailing = prepare(first.client)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 4)
    assert first.stop() == 0
    ids = finish(start_service().client, mailing)
    assert Counter(one["id"] for one in endpoint.received()) == Counter(dict.fromkeys(ids, 1))


def test_dispatchers_beside_the_server_share_the_work(start_service: StartService, endpoint: Endpoint) -> None:
    service = start_service("--dispatchers", "2")
    ids = finish(service.client, prepare(service.client))
    assert Counter(one["id"] for one in endpoint.received()) == Counter(dict.fromkeys(ids, 1))
    assert service.stop() == 0
