"""`mailing demo`: an end-to-end demo with 10,000 sample clients, checked to the last message.

Runs the service with its own Postgres and an HTTP endpoint as child processes, imports clients
from a CSV file, and uses the public gRPC API. The demo succeeds only if our records match what
the endpoint received. Nothing of it remains afterwards.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, NamedTuple

import typer

from mailing import MailingClient, new_filter, new_mailing
from mailing.cli.commands.client_import import import_csv
from mailing.cli.commands.server import find
from mailing.cli.commands.watch import follow, statistics
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.processes import ProcessError, running, tail
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_json
from mailing.client_csv import ClientReader, open_csv
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message

TAGS = ("news", "vip")
TEXT = "Hello {attributes.name|friend}, here is what is new for {tag} readers in {attributes.city|your town}."

_LONGEST = "+5m"
_SERVICE_LOG = "service.log"
_EXAMPLES = Path(__file__).resolve().parents[5] / "examples"
_SERVING = re.compile(r"serving on (\S+)")
_CONSOLE = re.compile(r"console on (\S+)")
_CONSOLE_NEEDS = "sse_starlette"
"""A package that is there only with the server's extra `console`."""

_LISTENING = re.compile(r"listening on (http://\S+)")
_FOREIGN_SETTINGS = ("MAILING_", "POSTGRES_", "AUTHTOKEN", "OAUTH")


class Received(NamedTuple):
    """One message as it arrived at the endpoint."""

    message_id: int
    phone: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How file, records and endpoint differ; everything but `delivered` is 0 when they agree."""

    delivered: int
    not_delivered: int
    delivered_again: int
    not_received: int
    received_unknown: int
    received_again: int
    received_different: int

    @property
    def agrees(self) -> bool:
        """Whether exactly the expected messages arrived, each once and with its text."""
        return not any(getattr(self, name) for name in self.__slots__ if name != "delivered")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "demo")(demo)


def demo(
    session: Session,
    examples: Annotated[
        Path, typer.Option("--examples", metavar="FOLDER", help="Folder of clients.csv and endpoint.py.")
    ] = _EXAMPLES,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep service and console open at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Run an end-to-end demo: deliver to 10,000 sample clients and check every message.

    Everything runs on this machine and is removed afterwards. The exit status is 0 only if our records
    match what the endpoint received.
    """
    for name in ("clients.csv", "endpoint.py"):
        if not (examples / name).is_file():
            raise CommandError(f"{examples / name} does not exist; --examples names the folder", ExitStatus.BAD_INPUT)
    find("serve")
    with _terminable(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailing-demo-")))
        # Started as root, Postgres runs as another user, who must pass through this folder.
        folder.chmod(0o711)
        mailing, comparison = _run(session, examples, folder, stack)
        _report(session, mailing, comparison)
        if stay:
            _say(session, "Service and console stay open until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                signal.pause()


def compare(expected: dict[str, str], delivered: dict[int, str], received: list[Received]) -> Comparison:
    """Compare what should be delivered with the records and with what the endpoint received.

    `expected` has the text by phone, `delivered` the phone by the id of the message.
    """
    arrived = {one.message_id: one for one in received}
    same = delivered.keys() & arrived.keys()
    return Comparison(
        delivered=len(delivered),
        not_delivered=len(expected.keys() - set(delivered.values())),
        delivered_again=len(delivered) - len(set(delivered.values())),
        not_received=len(delivered.keys() - same),
        received_unknown=len(arrived.keys() - same),
        received_again=len(received) - len(arrived),
        received_different=sum(
            arrived[key].phone != delivered[key] or arrived[key].text != expected.get(delivered[key]) for key in same
        ),
    )


def rendered(row: dict[str, str]) -> str:
    """Return the demo's text for one row of the CSV file, computed without the service."""
    name, city = row["attributes.name"] or "friend", row["attributes.city"] or "your town"
    return f"Hello {name}, here is what is new for {row['tag']} readers in {city}."


def _run(session: Session, examples: Path, folder: Path, stack: ExitStack) -> tuple[Mailing, Comparison]:
    token = secrets.token_urlsafe()
    try:
        url = _start_endpoint(stack, examples, folder, token)
        _say(session, f"Endpoint at {url}")
        environment = _environment(url, folder, token)
        session.address = _start_service(stack, folder, environment)
        session.environment = {}  # tokens and certificates are for other services
        _say(session, f"Service at {session.address}, with its own Postgres")
        if console := _console_of(folder / _SERVICE_LOG):
            _say(session, f"Console at {console}, live while the demo runs")
    except ProcessError as error:
        print(error, file=sys.stderr)
        raise CommandError("a process of the demo did not start; its output is above") from None
    with _log_on_failure(folder), session.connected() as client:
        ended = _deliver(session, client, examples / "clients.csv", url)
        _verify(session, environment)
        return ended


def _deliver(session: Session, client: MailingClient, clients: Path, url: str) -> tuple[Mailing, Comparison]:
    started = time.monotonic()
    with open_csv(str(clients)) as lines:
        outcome, rows = import_csv(session, client, lines, ClientReader(lines, clients.name))
    _say(session, f"{rows:,} clients imported in {time.monotonic() - started:.1f} s, {outcome.created:,} of them new")
    expected = _audience(clients)
    mailing = client.create_mailing(
        new_mailing(TEXT, title="Demo", filter=new_filter(tags=TAGS), end=_LONGEST, snapshot=True)
    )
    _say(session, f"Mailing {mailing.id} to the {len(expected):,} clients tagged {' or '.join(TAGS)}")
    mailing = follow(session, client, mailing.id)
    comparison = compare(expected, _delivered(client, mailing.id), _received(url))
    return mailing, comparison


def _delivered(client: MailingClient, mailing_id: int) -> dict[int, str]:
    """Return the phones of all messages recorded as delivered, by the ids of the messages."""
    phones = {one.id: one.phone for one in client.export_clients()}
    messages = client.list_messages(mailing_id, statuses=[Message.STATUS_DELIVERED])
    return {one.id: phones[one.client_id] for one in messages}


def _audience(clients: Path) -> dict[str, str]:
    """Return the text for each phone that the mailing is for, straight from the file."""
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
            f"records and endpoint differ: {comparison.delivered:,} messages delivered, "
            f"{comparison.not_delivered:,} clients without one and "
            f"{comparison.delivered_again:,} with several, {comparison.not_received:,} did not arrive, "
            f"{comparison.received_unknown:,} arrived that are not recorded, {comparison.received_again:,} again, "
            f"{comparison.received_different:,} with another phone or text"
        )
    agreement = f"{comparison.delivered:,} messages, the same ids, phones and texts, each exactly once"
    _say(session, f"Records and endpoint agree: {agreement}.")


def _start_endpoint(stack: ExitStack, examples: Path, folder: Path, token: str) -> str:
    program = [sys.executable, str(examples / "endpoint.py"), "--listen", "127.0.0.1:0", f"--token={token}"]
    return stack.enter_context(running(program, _LISTENING, folder / "endpoint.log", os.environ))[1]


def _environment(url: str, folder: Path, token: str) -> dict[str, str]:
    # Settings of a real service, such as its database, must not reach this one.
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)}
    return own | {
        "MAILING_DATA_DIR": str(folder / "data"),
        "MAILING_ENDPOINT_URL": url,
        "MAILING_ENDPOINT_TOKEN": token,
    }


def _verify(session: Session, environment: dict[str, str]) -> None:
    """Check that the records agree with each other, while the service runs."""
    program = [sys.executable, "-m", "mailing.cli", "verify"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CommandError(f"the records do not agree with each other:\n{done.stdout}{done.stderr}")
    _say(session, "Records agree with each other, as mailing-server verify found.")


def _start_service(stack: ExitStack, folder: Path, environment: dict[str, str]) -> str:
    if find_spec(_CONSOLE_NEEDS):
        environment["MAILING_CONSOLE_LISTEN"] = "127.0.0.1:0"
    program = [sys.executable, "-m", "mailing.cli", "serve", "--listen", "127.0.0.1:0"]
    return stack.enter_context(running(program, _SERVING, folder / _SERVICE_LOG, environment))[1]


def _console_of(log: Path) -> str:
    """Return the address of the console, which is printed right behind that of the service; '' without one."""
    for _ in range(100 if find_spec(_CONSOLE_NEEDS) else 0):
        if found := _CONSOLE.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    return ""


@contextmanager
def _log_on_failure(folder: Path) -> Iterator[None]:
    """Show the end of the service's log when the block fails, before the log is removed."""
    try:
        yield
    except CommandError:
        print(tail((folder / _SERVICE_LOG).read_text(errors="replace")), file=sys.stderr)
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the block, so that the children are stopped as well."""

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
