"""Secrets and personal data stay where they belong.

A service lives through good and bad days with values that occur nowhere else. Then everything
is searched that operators, log collectors and other users of the machine get to see. The level
is debug, which has the entries of all others.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest

from mailing import MailingClient, MailingError
from mailing.cli.processes import running
from mailing.v1.client_pb2 import Client
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy
from server.auth.tokens_file import new_token, token_line
from tests.e2e.conftest import PROGRAM, SERVING, environment
from tests.faults import http2
from tests.support.eventually import eventually_sync

PHONES = [f"7926555{number:04}" for number in range(1234, 1244)]
"""No other number of ten digits or more begins so."""

ATTRIBUTE, TEXT = "canary-of-an-attribute", "canary-of-a-text"
TOKEN, PASSWORD, STRANGER = "canary-of-an-endpoint-token", "canary-of-a-password", "canary-of-a-bad-token"
CALLER, OPERATOR = new_token(), new_token()
CANARIES = (*PHONES, ATTRIBUTE, TEXT, TOKEN, PASSWORD, STRANGER, CALLER, OPERATOR)


class Endpoint(BaseHTTPRequestHandler):
    """Accepts some messages, refuses some, hangs up on some, and repeats to everybody what it was sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = int(self.path.rpartition("/")[2])
        if number % 4 == 0:
            self.close_connection = True
            return
        answer = b'{"code": %d, "message": %s}' % (number % 4 == 1, body)
        self.send_response(500 if number % 4 == 2 else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is called there
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def with_password(dsn: str) -> str:
    parts = urlsplit(dsn)
    return parts._replace(
        netloc=f"{parts.username or 'postgres'}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"
    ).geturl()


def command_lines(log: Path) -> str:
    """Return what `ps` shows of every process of this machine that belongs to the service, and of its children."""
    shown = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(log).encode() in (folder / "environ").read_bytes():
                shown.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended
            continue
    assert any("serve" in line for line in shown)
    return "\n".join(shown)


def errors_of(client: MailingClient) -> Iterator[str]:
    """Make calls that are refused; return everything that the refusals say."""
    calls: list[Callable[[], object]] = [
        lambda: client.create_client(Client(phone=PHONES[0], timezone="Europe/Moscow")),
        lambda: client.create_client(Client(phone=f"+{PHONES[0]}", timezone="Europe/Moscow")),
        lambda: client.create_client(Client(phone=PHONES[0], timezone="UTC", attributes={"a": ATTRIBUTE * 100})),
        lambda: client.create_client(Client(phone=PHONES[9], timezone="UTC", tag="broken")),
        lambda: client.create_mailing(Mailing(text=f"{TEXT} {{attributes.name")),
        lambda: client.create_mailing(Mailing(text=f"{TEXT} }}")),
        lambda: client.create_mailing(Mailing(text=TEXT * 1000)),
    ]
    for call in calls:
        with pytest.raises(MailingError) as caught:
            call()
        yield f"{caught.value} {vars(caught.value)!r}"


def undecodable(address: str) -> str:
    """Send what is no request; return the refusal."""
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/mailing.v1.ClientService/GetClient")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff" + PHONES[0].encode(), metadata=(("authorization", f"Bearer {CALLER}"),))
    return repr(caught.value)


def unknown(address: str) -> str:
    """Call with a token that nobody has; return the refusal."""
    with MailingClient.connect(address, token=STRANGER) as client, pytest.raises(MailingError) as caught:
        client.get_mailing(1)
    return f"{caught.value} {caught.value.__cause__!r}"


def unreadable(address: str) -> str:
    """Send credentials that are no text, which gRPC logs as they are; return nothing, since nothing is answered."""
    with closing(http2.Connection(address)) as one:
        assert one.flood(
            20, lambda http: http2.called_with(http, (b"authorization", f"Bearer {STRANGER}".encode() + b"\xff"))
        )
    return ""


def metrics(file: Path) -> str:
    """Return the page that everybody may read who reaches the admin port."""
    address = re.search(r"metrics and health are on (http://[\d.:]+)", file.read_text())
    assert address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address[1]}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def rejected_at_start(tmp_path: Path) -> str:
    """Return what the service says of settings that it cannot use."""
    said = ""
    for settings in (
        {"MAILING_ENDPOINT_TOKEN": f"{TOKEN} with a space"},
        {"MAILING_DSN": f"postgresql//user:{PASSWORD}@nowhere/db"},
        {"MAILING_DSN": f"postgresql://user:{PASSWORD}@127.0.0.1:1/db"},
        {"MAILING_ENDPOINT_URL": f"https://user:{PASSWORD}@127.0.0.1/"},
    ):
        ended = subprocess.run(
            [*PROGRAM, "serve", "--listen", "127.0.0.1:0"],
            env=environment(**{"MAILING_DATA_DIR": str(tmp_path), "MAILING_DSN": "", **settings}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode
        said += ended.stdout + ended.stderr
    return said


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def broken_tables(dsn: str) -> Iterator[None]:
    """Let some writes of the API and of the dispatcher fail; Postgres then tells the whole row."""
    asyncio.run(
        execute(
            dsn,
            "ALTER TABLE clients ADD CONSTRAINT canary CHECK (tag <> 'broken')",
            "ALTER TABLE attempts ADD CONSTRAINT canary CHECK (false) NOT VALID",
        )
    )
    yield
    asyncio.run(
        execute(dsn, "ALTER TABLE clients DROP CONSTRAINT canary", "ALTER TABLE attempts DROP CONSTRAINT canary")
    )


def lives_through_it(address: str, dsn: str) -> str:
    """Deliver, fails and is refused; return what callers are told in errors and operators in the log."""
    with closing(MailingClient.connect(address, token=CALLER)) as client:
        for phone in PHONES[:8]:
            client.create_client(Client(phone=phone, timezone="Europe/Moscow", attributes={"name": ATTRIBUTE}))
        with broken_tables(dsn):
            retry = RetryPolicy(max_attempts=1)
            mailing = client.create_mailing(Mailing(text=f"{TEXT} {{attributes.name}} {{phone}}", retry=retry))
            seen = "".join(errors_of(client))
            settled(client, mailing.id)
        client.send_test_message(mailing.id, PHONES[0])
        asyncio.run(
            execute(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
        settled(client, created_at_last(client, Mailing(text=TEXT, retry=retry)).id)
        return seen + undecodable(address) + unreadable(address) + unknown(address) + told_to_operators(address)


def told_to_operators(address: str) -> str:
    """Return what the log, the dispatchers and the endpoints tell people with the scope admin alone."""
    with closing(MailingClient.connect(address, token=OPERATOR)) as client:
        told = "".join(map(str, client.watch_log(follow=False)))
        assert "message.failed" in told
        return told + str(client.get_dispatch()) + str(client.list_endpoints())


def created_at_last(client: MailingClient, mailing: Mailing) -> Mailing:
    """Create a mailing as soon as the service has found its database again."""
    ends = time.monotonic() + 30
    while True:
        try:
            return client.create_mailing(mailing)
        except MailingError as error:
            if error.reason != "DATABASE_UNAVAILABLE" or time.monotonic() > ends:
                raise


def settled(client: MailingClient, mailing_id: int) -> None:
    """Return once every message of a mailing has its outcome."""
    eventually_sync(lambda: client.get_mailing(mailing_id).progress, lambda one: one.total and not one.pending)


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_output_has_a_secret_or_a_person_in_it(form: str, database_dsn: str, url: str, tmp_path: Path) -> None:
    """Fails when entries pass unfiltered: Postgres tells the row that breaks a constraint."""
    log, file, tokens = tmp_path / "output.log", tmp_path / "entries.log", tmp_path / "tokens"
    lines = token_line("caller", CALLER, ["all"]), token_line("operator", OPERATOR, ["admin"])
    tokens.write_text("\n".join(lines))
    settings = {
        "MAILING_DSN": with_password(database_dsn),
        "MAILING_ENDPOINT_URL": url,
        "MAILING_ENDPOINT_TOKEN": TOKEN,
        "MAILING_TOKENS_FILE": str(tokens),
        "MAILING_ADMIN_LISTEN": "127.0.0.1:0",
        "MAILING_LOG_LEVEL": "debug",
        "MAILING_LOG_FORMAT": form,
        "MAILING_LOG_FILE": str(file),
        "MAILING_DISPATCHERS": "1" if form == "json" else "0",
    }
    program = [*PROGRAM, "serve", "--listen", "127.0.0.1:0"]
    with running(program, SERVING, log, environment(**settings)) as serving:
        seen = command_lines(file) + lives_through_it(serving[1], database_dsn) + metrics(file)
    seen += rejected_at_start(tmp_path / "data")
    seen += "".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log*"))
    assert "canary" in re.sub("|".join(CANARIES), "", seen), "the broken constraint was not met"
    found = {canary: seen[max(0, seen.index(canary) - 300) :][:400] for canary in CANARIES if canary in seen}
    assert not found
