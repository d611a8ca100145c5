"""Operators and real processes: who died vanishes, a stop holds everywhere, settings outlive restarts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from mailing import new_dispatch_settings
from tests.e2e.conftest import Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import COUNT, finish, prepare
from tests.support.eventually import eventually_sync


def test_a_killed_replica_vanishes_within_five_seconds(start_service: StartService) -> None:
    first, second = start_service(), start_service()
    eventually_sync(lambda: len(second.client.get_dispatch().replicas) == 2)
    # An idle one promises its next beat the latest.
    eventually_sync(lambda: all(one.poll_reason == "backed off" for one in second.client.get_dispatch().replicas))
    died_at = time.monotonic()
    first.kill()
    eventually_sync(lambda: len(second.client.get_dispatch().replicas) == 1, within=10.0)
    assert time.monotonic() - died_at < 5.0


def test_a_replica_that_stops_in_order_is_gone_at_once(start_service: StartService) -> None:
    first, second = start_service("--dispatchers", "2"), start_service()
    eventually_sync(lambda: len(second.client.get_dispatch().replicas) == 3)
    assert first.stop() == 0
    assert len(second.client.get_dispatch().replicas) == 1


def test_the_stop_of_one_replica_holds_on_the_other_within_a_second(
    start_service: StartService, endpoint: Endpoint
) -> None:
    """The endpoint's clock is this machine's: what it received later than a second after the answer counts."""
    slow = {"MAILING_ENDPOINT_MAX_CONCURRENCY": "4"}
    first, second = start_service(**slow), start_service(**slow)
    mailing = prepare(first.client)
    eventually_sync(lambda: all(one.in_flight for one in first.client.get_dispatch().replicas))
    assert first.client.pause_dispatch().paused
    time.sleep(1.0)
    before = len(endpoint.received())
    assert before < COUNT
    eventually_sync(lambda: all(not one.in_flight for one in second.client.get_dispatch().replicas))
    assert len(endpoint.received()) == before
    assert not second.client.resume_dispatch().paused
    ids = finish(second.client, mailing)
    assert len(ids) == COUNT
    assert len(endpoint.received()) == COUNT


def test_settings_hold_everywhere_within_a_second_and_after_a_restart(start_service: StartService) -> None:
    first, second = start_service(), start_service()
    eventually_sync(lambda: len(second.client.get_dispatch().replicas) == 2)
    changed = first.client.update_dispatch_settings(new_dispatch_settings(poll_max=0.5, max_concurrency=7))
    changed_at = time.monotonic()
    eventually_sync(lambda: {one.concurrency_limit for one in second.client.get_dispatch().replicas} == {7}, within=5.0)
    assert time.monotonic() - changed_at < 1.0
    assert first.stop() == second.stop() == 0
    third = start_service()
    assert third.client.get_dispatch().settings == changed
    eventually_sync(lambda: [one.concurrency_limit for one in third.client.get_dispatch().replicas] == [7])
    assert third.client.update_dispatch_settings(fields=["max_concurrency"]).max_concurrency == 1024


def test_a_stop_holds_for_replicas_that_start_later(start_service: StartService, endpoint: Endpoint) -> None:
    first = start_service()
    first.client.pause_dispatch()
    prepare(first.client, 100)
    assert first.stop() == 0
    second = start_service("--dispatchers", "1")
    assert second.client.get_dispatch().settings.paused
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(lambda: next(iter(second.client.watch_dispatch(min_interval=0.1))).settings.paused)
        assert watching.result(timeout=10)
    eventually_sync(lambda: len(second.client.get_dispatch().replicas) == 1)
    assert endpoint.received() == []
    second.client.resume_dispatch()
    eventually_sync(lambda: len(endpoint.received()) == 100)
