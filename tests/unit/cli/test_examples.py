"""The example files: the clients are what their script makes, the endpoint is what the demo needs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples import make_clients
from mailing.cli.commands.demo import TAGS
from mailing.cli.processes import running
from mailing.client_csv import ClientReader, open_csv

EXAMPLES = Path(make_clients.__file__).parent
CLIENTS = EXAMPLES / "clients.csv"


def test_the_file_is_what_the_script_makes() -> None:
    out = io.StringIO(newline="")
    make_clients.write(out)
    assert CLIENTS.read_bytes().decode() == out.getvalue()


def test_the_clients_are_many_and_various() -> None:
    with open_csv(str(CLIENTS)) as lines:
        clients = list(ClientReader(lines, "clients.csv"))
    assert len(clients) == len({one.phone for one in clients}) == 10_000
    assert len({one.timezone for one in clients}) >= 10
    assert len({one.operator_code for one in clients}) >= 20
    assert min(Counter(one.tag for one in clients).values()) > 100
    assert all(re.fullmatch(r"70\d{9}", one.phone) and one.phone[1:4] == one.operator_code for one in clients)
    assert any(one.receive_window.start.hours * 3600 + one.receive_window.duration.seconds > 86_400 for one in clients)
    assert any(one.receive_window.duration.seconds == 1800 for one in clients)


def test_the_demo_can_be_delivered_at_any_hour() -> None:
    with CLIENTS.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["tag"] in TAGS]
    assert len(rows) > 3000
    for row in rows:
        assert row["window_start"] == row["window_end"]
        # A window of 24 hours leaves an hour out on the day that has 25.
        assert not (row["window_start"] and row["timezone"] in make_clients.SUMMER_TIME)


class Reply(NamedTuple):
    status: int
    body: Any


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    program = [sys.executable, str(EXAMPLES / "endpoint.py")]
    program += ["--listen", "127.0.0.1:0", "--token", "secret", "--reject", "99"]
    log = tmp_path_factory.mktemp("endpoint") / "log"
    with running(program, re.compile(r"listening on http://(.*):(\d+)/"), log, os.environ) as match:
        yield match[1], int(match[2])


def exchange(address: tuple[str, int], request: bytes, step: int = 1 << 20) -> list[Reply]:
    """Send bytes, `step` at a time, and read all answers until the endpoint closes."""
    with socket.create_connection(address, 10) as connection:
        for start in range(0, len(request), step):
            connection.sendall(request[start : start + step])
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    replies = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        replies.append(Reply(int(head.split()[1]), json.loads(rest[:length])))
        answer = rest[length:]
    return replies


def post(identity: Any = 5, *, token: str = "secret", path: str = "/send/5", key: str = "5", body: Any = None) -> bytes:
    content = (
        body if isinstance(body, bytes) else json.dumps(body or {"id": identity, "phone": 70100000001, "text": "Hi"})
    )
    data = content if isinstance(content, bytes) else content.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
    return head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data


def received(address: tuple[str, int]) -> list[Any]:
    [reply] = exchange(address, b"GET /received HTTP/1.1\r\nHost: x\r\n\r\n")
    return list(reply.body["received"])


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "at once"])
def test_a_message_is_accepted_and_remembered(step: int, endpoint: tuple[str, int]) -> None:
    before = len(received(endpoint))
    text = {"id": 5, "phone": 70100000001, "text": "Привет"}
    assert exchange(endpoint, post(body=text) * 2, step) == [Reply(200, {"code": 0, "message": "OK"})] * 2
    assert received(endpoint)[before:] == [text, text]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(token="wrong"), 401),
        (post(path="/send/6"), 400),
        (post(key="6"), 400),
        (post("5"), 400),
        (post(True), 400),
        (post(body=b"{"), 400),
        (post(body=b"[]"), 400),
        (post(body={"id": 5, "phone": 1, "text": "x", "more": 1}), 400),
        (post(body=b" " * 70_000), 413),
        (b"PUT / HTTP/1.1\r\n\r\n", 405),
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"x" * 20_000, 431),
    ],
)
def test_what_is_not_the_protocol_is_refused_and_not_remembered(
    request_: bytes, status: int, endpoint: tuple[str, int]
) -> None:
    before = received(endpoint)
    assert [reply.status for reply in exchange(endpoint, request_)] == [status]
    assert received(endpoint) == before


def test_a_rejected_phone_gets_another_code(endpoint: tuple[str, int]) -> None:
    [reply] = exchange(endpoint, post(body={"id": 5, "phone": 70100000099, "text": "Hi"}))
    assert (reply.status, reply.body["code"]) == (200, 1)
