"""Draw docs/top.svg, the screen of `mailing top`, from a real run: `make picture`.

A service on a database of its own delivers to two small endpoints, a third one is not there; the
picture is the screen at that moment. Only the names that differ from machine to machine are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.service import Service, running_service
from mailing import MailingClient, new_filter, new_mailing
from mailing.cli.commands.top_monitor import Monitor
from mailing.cli.terminal.top_view import Snapshot, TopView
from mailing.v1.mailing_pb2 import Mailing

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "top.svg"
COLUMNS, ROWS = 90, 20
CLIENTS = {"customers": 60_000, "orders": 9_000, "bonus": 4_000}
_LISTENING = re.compile(r"listening on (http://\S+)")


@contextmanager
def _endpoint(delay: float) -> Iterator[str]:
    """Run examples/endpoint.py for the length of the block; yield its URL."""
    program = [sys.executable, str(ROOT / "examples" / "endpoint.py"), "--listen", "127.0.0.1:0", "--token", "bench"]
    with subprocess.Popen([*program, "--delay", str(delay)], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            found = _LISTENING.match(process.stdout.readline())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()


def _endpoints_file(folder: Path, sms: str, push: str) -> Path:
    urls = {"sms-gateway": sms, "push": push, "legacy-smpp": "http://127.0.0.1:9/"}
    path = folder / "endpoints.toml"
    path.write_text("".join(f"[endpoints.{name}]\nurl = '{url}'\ntoken = 'bench'\n" for name, url in urls.items()))
    return path


@asynccontextmanager
async def _service(stack: ExitStack) -> AsyncIterator[Service]:
    """Run a service with two dispatcher processes and its clients for the length of the block."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    sms, push = (stack.enter_context(_endpoint(delay)) for delay in (0.02, 0.06))
    settings = {"MAILING_ENDPOINTS_FILE": str(_endpoints_file(folder, sms, push)), "MAILING_ENDPOINT_URL": ""}
    async with running_service("", ["--dispatchers", "2"], settings) as service:
        first = 79_000_000_000
        for tag, count in CLIENTS.items():
            await service.import_clients(count, tag=tag, first_phone=first)
            first += count
        yield service


def _mailing(title: str, tag: str, endpoint: str, **fields: Any) -> Mailing:
    text = "Hello {phone}: " + title
    return new_mailing(text, title=title, filter=new_filter(tags=[tag]), endpoint=endpoint, **fields)


def _work(client: MailingClient) -> int:
    """Create mailings one after the other, as a working day has them; return the id of the one to choose."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    client.create_mailing(_mailing("Win-back offer", "customers", "push", start=tomorrow))
    client.create_mailing(_mailing("Bonus points", "bonus", "legacy-smpp"))
    client.create_mailing(_mailing("Order updates", "orders", "push", max_rate=300))
    time.sleep(6)
    reminder = client.create_mailing(_mailing("Payment reminder", "orders", "sms-gateway", max_rate=900))
    time.sleep(7)
    client.pause_mailing(reminder.id)
    sale = client.create_mailing(_mailing("Spring sale", "customers", "sms-gateway", max_rate=2000))
    time.sleep(10)
    return sale.id


def _watched(address: str) -> tuple[Snapshot, int]:
    """Return what `mailing top` knows at the end of the work, and the chosen mailing."""
    with MailingClient.connect(address) as client:
        monitor = Monitor(client)
        monitor.start()
        try:
            chosen = _work(client)
            return monitor.snapshot, chosen
        finally:
            monitor.stop()


def _with_plain_names(snapshot: Snapshot) -> Snapshot:
    """Replace the machine's name and the processes' numbers, which differ from run to run."""
    assert snapshot.dispatch is not None
    dispatch = type(snapshot.dispatch)()
    dispatch.CopyFrom(snapshot.dispatch)
    for number, one in enumerate(dispatch.replicas, 1):
        one.host, one.process_id = f"sender-{number}", 4240 + number
    return replace(snapshot, dispatch=dispatch)


def picture(snapshot: Snapshot, chosen: int) -> str:
    """Return the screen as SVG. Fonts are the reader's own: nothing is loaded from elsewhere."""
    console = Console(
        width=COLUMNS, height=ROWS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(TopView(console, "127.0.0.1:50051", keys=True).draw(snapshot, chosen, ""))
    svg = console.export_svg(title="mailing top", unique_id="top")
    return re.sub(r" *@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)


async def draw() -> str:
    """Return the picture of a run."""
    with ExitStack() as stack:
        async with _service(stack) as service:
            snapshot, chosen = await asyncio.to_thread(_watched, service.address)
    return picture(_with_plain_names(snapshot), chosen)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        PICTURE.write_text(asyncio.run(draw()), encoding="utf-8")
        print(PICTURE.relative_to(ROOT))
