"""`mailing demo`: the whole product at work on this machine, checked to the last message.

The service on a Postgres of its own and an HTTP endpoint run in processes of their own; the
clients come from a CSV file, and everything goes through the public API. The demo succeeds
only if the ledger and the endpoint agree exactly. Nothing of it remains afterwards.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, NamedTuple

import typer

from mailing import MailingClient, new_filter, new_mailing
from mailing.cli.commands.clients import import_csv
from mailing.cli.commands.watch import follow, statistics
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.processes import ProcessError, running, tail
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_json
from mailing.client_csv import open_csv
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message

TAGS = ("news", "vip")
TEXT = "Hello {attributes.name|friend}, here is what is new for {tag} readers in {attributes.city|your town}."

_LONGEST = "+5m"
_SERVICE_LOG = "service.log"
_EXAMPLES = Path(__file__).resolve().parents[5] / "examples"
_SERVING = re.compile(r"serving on (\S+)")
_LISTENING = re.compile(r"listening on (http://\S+)")
_FOREIGN_SETTINGS = ("MAILING_", "POSTGRES_", "AUTHTOKEN", "OAUTH")


class Received(NamedTuple):
    """One message as it arrived at the endpoint."""

    message_id: int
    phone: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How file, ledger and endpoint differ; but for `delivered` all is 0 when they agree."""

    delivered: int
    not_delivered: int
    delivered_again: int
    not_received: int
    received_unknown: int
    received_again: int
    received_different: int

    @property
    def agrees(self) -> bool:
        """Whether exactly the expected messages arrived, each once and word for word."""
        return not any(getattr(self, name) for name in self.__slots__ if name != "delivered")


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    command(app, "demo")(demo)


def demo(
    session: Session,
    examples: Annotated[
        Path, typer.Option("--examples", metavar="FOLDER", help="Where clients.csv and endpoint.py are.")
    ] = _EXAMPLES,
) -> None:
    """Deliver a mailing to thousands of clients, and compare the ledger with what arrived.

    Everything runs on this machine and is gone afterwards. The exit status is 0 only if the ledger and
    the endpoint agree exactly.
    """
    for name in ("clients.csv", "endpoint.py"):
        if not (examples / name).is_file():
            raise CommandError(f"{examples / name} is not there; --examples names the folder", ExitStatus.BAD_INPUT)
    with _terminable(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailing-demo-")))
        # Where Postgres runs as somebody else, because we are root, they pass through here.
        folder.chmod(0o711)
        mailing, comparison = _run(session, examples, folder, stack)
    _report(session, mailing, comparison)


def compare(wanted: dict[str, str], ledger: dict[int, str], received: list[Received]) -> Comparison:
    """Compares who is to get what with what the ledger calls delivered and what the endpoint received.

    `wanted` has the text by phone, `ledger` the phone by the id of the message.
    """
    arrived = {one.message_id: one for one in received}
    same = ledger.keys() & arrived.keys()
    return Comparison(
        delivered=len(ledger),
        not_delivered=len(wanted.keys() - set(ledger.values())),
        delivered_again=len(ledger) - len(set(ledger.values())),
        not_received=len(ledger.keys() - same),
        received_unknown=len(arrived.keys() - same),
        received_again=len(received) - len(arrived),
        received_different=sum(
            arrived[key].phone != ledger[key] or arrived[key].text != wanted.get(ledger[key]) for key in same
        ),
    )


def rendered(row: dict[str, str]) -> str:
    """Returns the demo's text for one row of the CSV file, worked out without the service."""
    name, city = row["attributes.name"] or "friend", row["attributes.city"] or "your town"
    return f"Hello {name}, here is what is new for {row['tag']} readers in {city}."


def _run(session: Session, examples: Path, folder: Path, stack: ExitStack) -> tuple[Mailing, Comparison]:
    token = secrets.token_urlsafe()
    try:
        url = _start_endpoint(stack, examples, folder, token)
        _say(session, f"Endpoint at {url}")
        session.address = _start_service(stack, url, folder, token)
        session.environment = {}  # tokens and authorities are for other services
        _say(session, f"Service at {session.address}, on a Postgres of its own")
    except ProcessError as error:
        print(error, file=sys.stderr)
        raise CommandError("a process of the demo did not start; its output stands above") from None
    with _log_on_failure(folder), session.connected() as client:
        return _deliver(session, client, examples / "clients.csv", url)


def _deliver(session: Session, client: MailingClient, clients: Path, url: str) -> tuple[Mailing, Comparison]:
    started = time.monotonic()
    with open_csv(str(clients)) as lines:
        outcome, rows = import_csv(session, client, lines, clients.name)
    _say(session, f"{rows:,} clients imported in {time.monotonic() - started:.1f} s, {outcome.created:,} of them new")
    wanted = _audience(clients)
    mailing = client.create_mailing(
        new_mailing(TEXT, title="Demo", filter=new_filter(tags=TAGS), end=_LONGEST, snapshot=True)
    )
    _say(session, f"Mailing {mailing.id} to the {len(wanted):,} clients tagged {' or '.join(TAGS)}")
    mailing = follow(session, client, mailing.id)
    comparison = compare(wanted, _ledger(client, mailing.id), _received(url))
    return mailing, comparison


def _ledger(client: MailingClient, mailing_id: int) -> dict[int, str]:
    """Returns the phones of all messages that the ledger calls delivered, by the ids of the messages."""
    phones = {one.id: one.phone for one in client.export_clients()}
    messages = client.list_messages(mailing_id, statuses=[Message.STATUS_DELIVERED])
    return {one.id: phones[one.client_id] for one in messages}


def _audience(clients: Path) -> dict[str, str]:
    """Returns the phones that the mailing is for and their texts, straight from the file."""
    with open_csv(str(clients)) as lines:
        return {row["phone"]: rendered(row) for row in csv.DictReader(lines) if row["tag"] in TAGS}


def _received(url: str) -> list[Received]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url + "received", timeout=30) as answer:
        received = json.load(answer)["received"]
    return [Received(one["id"], str(one["phone"]), one["text"]) for one in received]


def _report(session: Session, mailing: Mailing, comparison: Comparison) -> None:
    if session.json:
        differences = {name: getattr(comparison, name) for name in Comparison.__slots__}
        print_json(session, {"mailing": document_of(mailing), "agrees": comparison.agrees, **differences})
    else:
        session.out.print(statistics(mailing))
    if not comparison.agrees:
        raise CommandError(
            f"ledger and endpoint differ: {comparison.delivered:,} messages delivered, "
            f"{comparison.not_delivered:,} clients without one and "
            f"{comparison.delivered_again:,} with several, {comparison.not_received:,} did not arrive, "
            f"{comparison.received_unknown:,} arrived unknown to the ledger, {comparison.received_again:,} again, "
            f"{comparison.received_different:,} with another phone or text"
        )
    agreement = f"{comparison.delivered:,} messages, the same ids, phones and texts, each exactly once"
    _say(session, f"Ledger and endpoint agree: {agreement}.")


def _start_endpoint(stack: ExitStack, examples: Path, folder: Path, token: str) -> str:
    program = [sys.executable, str(examples / "endpoint.py"), "--listen", "127.0.0.1:0", "--token", token]
    return stack.enter_context(running(program, _LISTENING, folder / "endpoint.log", os.environ))[1]


def _start_service(stack: ExitStack, url: str, folder: Path, token: str) -> str:
    # What is set for a real service, such as its database, must not reach this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)}
    environment |= {
        "MAILING_DATA_DIR": str(folder / "data"),
        "MAILING_ENDPOINT_URL": url,
        "MAILING_ENDPOINT_TOKEN": token,
    }
    program = [sys.executable, "-m", "mailing.cli", "serve", "--listen", "127.0.0.1:0"]
    return stack.enter_context(running(program, _SERVING, folder / _SERVICE_LOG, environment))[1]


@contextmanager
def _log_on_failure(folder: Path) -> Iterator[None]:
    """Shows the end of the service's log before it goes, when the block fails."""
    try:
        yield
    except CommandError:
        print(tail((folder / _SERVICE_LOG).read_text(errors="replace")), file=sys.stderr)
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP unwind the block, so that the children are ended then too."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(session: Session, line: str) -> None:
    (session.err if session.json else session.out).print(line)
