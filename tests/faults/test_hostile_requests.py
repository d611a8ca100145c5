"""Requests that never end, or that are larger than their method takes, hold nothing and take nothing from others."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from threading import Thread

import grpc
import pytest

from mailing.v1.mailing_pb2 import Mailing
from tests.faults import http2
from tests.faults.conftest import StartService
from tests.faults.victims import MIB, memory, slowest

GROWTH = 64 * MIB
"""Bytes that the service may have more in memory during the attack: unbounded it was 1.2 GB."""

CHECK = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("path", [CHECK, http2.ASKS_DATABASE])
def test_bodies_that_never_end_hold_little_and_others_are_served(start_service: StartService, path: str) -> None:
    """Fails, by memory, when a method's request is read without a place, and when a window grows unread."""
    service = start_service()
    service.client.create_mailing(Mailing(text="Hello"))
    quiet, before = slowest(service), memory(service)
    with closing(http2.Connection(service.address)) as one:
        attack = Thread(target=one.send_bodies, args=(path, 300, 4 * MIB, 5.0))
        attack.start()
        took, most = [], 0
        while attack.is_alive():
            took.append(slowest(service, 100))
            most = max(most, memory(service))
        attack.join()
    assert most - before < GROWTH
    assert min(took) <= max(2 * quiet, 0.2)  # other tests run beside this one, the attack is in every round


def test_a_body_that_never_ends_is_given_up(start_service: StartService) -> None:
    """The next that waits gets its place; fails when a reader keeps its place for as long as it likes."""
    service = start_service()
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(CHECK, 40, 4 * MIB, 10.0, enough=20) >= 20


def test_a_refused_call_ends_before_its_body_has_arrived(start_service: StartService, tmp_path: Path) -> None:
    """Fails when the request is read before the caller is known."""
    (tmp_path / "tokens").write_text("")
    service = start_service(MAILING_TOKENS_FILE=str(tmp_path / "tokens"))
    before = memory(service)
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(http2.ASKS_DATABASE, 300, 4 * MIB, 6.0) == 300
    assert memory(service) - before < GROWTH / 4


def test_a_body_that_says_it_is_huge_is_refused_at_once(start_service: StartService) -> None:
    service = start_service()
    with closing(http2.Connection(service.address)) as one:
        assert one.send_bodies(CHECK, 50, 4 * MIB, 6.0, announced=2**31) == 50


def test_metadata_that_is_no_text_is_logged_once_and_not_as_it_is(start_service: StartService, tmp_path: Path) -> None:
    """Fails, by 3 KB a call, without a limit for what libraries log."""
    file = tmp_path / "entries.log"
    service = start_service(MAILING_LOG_FILE=str(file))
    with closing(http2.Connection(service.address)) as one:
        assert one.flood(2000, lambda http: http2.called_with(http, (b"authorization", b"Bearer secret\xff" * 10)))
        one.send_bodies(CHECK, 1, 10, 1.0)
    said = file.read_text()
    assert "Invalid encoding on" in said
    assert "secret" not in said
    assert len(said) < 5000


def test_what_a_stream_was_asked_is_not_kept(start_service: StartService) -> None:
    """Names that nobody serves, and fields that nobody knows; fails, by 200 MiB, when requests are kept."""
    service = start_service()
    before = memory(service)
    with grpc.insecure_channel(service.address) as channel:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
        for size in (4 * MIB - 100, 1000):
            for _ in range(50):
                with pytest.raises(grpc.RpcError) as refused:
                    next(watch(_field(1, size)))
                assert isinstance(refused.value, grpc.Call)
                assert refused.value.code().name in ("NOT_FOUND", "RESOURCE_EXHAUSTED")
        messages: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/mailing.v1.DeliveryService/WatchMessages"
        )
        streams = [messages(_field(1000, 15_000)) for _ in range(200)]
        assert [next(one) != b"" for one in streams] == [True] * 200
        assert memory(service) - before < GROWTH / 2
        for one in streams:
            one.cancel()


def test_a_host_has_few_streams_of_methods_that_need_no_credentials(start_service: StartService) -> None:
    service = start_service()
    with grpc.insecure_channel(service.address) as channel:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
        streams = [watch(b"") for _ in range(16)]
        assert [next(one) for one in streams] == [b"\x08\x01"] * 16
        with pytest.raises(grpc.RpcError, match="16 health streams"):
            next(watch(b""))
        for one in streams:
            one.cancel()


def _field(number: int, size: int) -> bytes:
    """Return a message with one field of bytes."""
    head = b"".join(map(_varint, (number << 3 | 2, size)))
    return head + b"x" * size


def _varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + _varint(value >> 7) if value > 127 else bytes([value])
