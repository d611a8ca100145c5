"""What holds however processes stop, stand still and go on: ends, Pause, Cancel, and outages."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from mailing import MailingClient, new_mailing, new_timestamp
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message
from tests.e2e.conftest import Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import add_clients, completed
from tests.support.eventually import eventually_sync

COUNT = 30_000
SLOW = {"MAILING_ENDPOINT_MAX_CONCURRENCY": "1"}
"""One request at a time, so that a mailing lasts a while."""


def prepare(client: MailingClient, **fields: object) -> Mailing:
    add_clients(client, COUNT)
    mailing = new_mailing("Hello", snapshot=True)
    mailing.MergeFrom(Mailing(**fields))  # type: ignore[arg-type]
    return client.create_mailing(mailing)


def test_a_process_that_stood_still_sends_nothing_after_the_end(
    start_service: StartService, endpoint: Endpoint
) -> None:
    """Fails when the last check before a request does not look at the clock (seen with it always true)."""
    service = start_service(**SLOW)
    ends_at = datetime.now(UTC) + timedelta(seconds=4)
    mailing = prepare(service.client, end_time=new_timestamp(ends_at))
    eventually_sync(lambda: len(endpoint.received()) > 20)
    os.kill(service.pid, signal.SIGSTOP)
    time.sleep(max(0.0, ends_at.timestamp() - time.time()) + 0.5)  # what passes is the end
    os.kill(service.pid, signal.SIGCONT)
    completed(service.client, mailing.id)
    assert max(endpoint.times()) < ends_at.timestamp() + 0.05
    statuses = {message.status for message in service.client.list_messages(mailing_id=mailing.id)}
    assert statuses == {Message.STATUS_DELIVERED, Message.STATUS_EXPIRED}


@pytest.mark.parametrize("verb", ["pause_mailing", "cancel_mailing"])
def test_a_second_after_pause_or_cancel_nobody_starts_a_request(
    start_service: StartService, endpoint: Endpoint, verb: str
) -> None:
    """Not even a replica that stood still meanwhile. Fails with FRESH_FOR at 9999: leases then need no confirmation."""
    first, second = start_service(**SLOW), start_service(**SLOW)
    mailing = prepare(first.client)
    eventually_sync(lambda: len(endpoint.received()) > 50)
    os.kill(second.pid, signal.SIGSTOP)
    getattr(first.client, verb)(mailing.id)
    returned = time.time()
    time.sleep(1.5)  # what passes is the second that is allowed
    os.kill(second.pid, signal.SIGCONT)
    time.sleep(1.5)  # what is looked for would happen now
    assert max(endpoint.times()) <= returned + 1.0
    if verb == "pause_mailing":
        first.client.cancel_mailing(mailing.id)
    eventually_sync(lambda: not first.client.get_mailing(mailing.id).progress.pending)
    counts = first.client.get_mailing(mailing.id).progress
    assert counts.delivered + counts.cancelled == counts.total
    assert counts.delivered == len(endpoint.received())
