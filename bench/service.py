"""A real service process under measurement, used as any client uses it: `mailing-server serve` and gRPC.

The database is the service's own Postgres in a throwaway folder or, where MAILING_DSN is
set, a throwaway database on that server. The harness reads Postgres directly too: its
log position, its statistics, and the ledger that is compared with the endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc.aio

from bench.measure import cpu_seconds, descendants, is_postgres, postgres_cpu_seconds, say, service_pids
from mailing.v1.client_pb2 import Client, ClientFilter, ReceiveWindow
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, GetMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub

TEXT = "Hello {phone}"
"""The text of every mailing."""

_SERVING = re.compile(r"serving on (\S+:\d+)")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class BenchmarkFailed(Exception):
    """What was to be measured did not happen; the text says what."""


@dataclass(slots=True)
class Service:
    """One running service, a channel to it and a connection to its Postgres."""

    process: asyncio.subprocess.Process
    channel: grpc.aio.Channel
    address: str
    postgres: asyncpg.Connection
    postmaster: int | None
    """The id of the Postgres server's first process; None when it runs elsewhere."""

    @property
    def pid(self) -> int:
        """The id of the service's first process."""
        return self.process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU time of the service's processes so far, Postgres not included."""
        return sum(cpu_seconds(pid) for pid in service_pids(self.pid))

    def postgres_cpu_seconds(self) -> float | None:
        """Return the CPU time of the Postgres server so far; None when it runs elsewhere."""
        return None if self.postmaster is None else postgres_cpu_seconds(self.postmaster)

    async def wal_position(self) -> int:
        """Return how many bytes of write-ahead log there were so far."""
        return int(await self.postgres.fetchval("SELECT pg_current_wal_lsn() - '0/0'"))

    async def import_clients(
        self,
        count: int,
        tag: str = "",
        window: ReceiveWindow | None = None,
        first_phone: int = 79000000000,
    ) -> ImportClientsResponse:
        """Import `count` clients of consecutive phones through the public API, 500 per stream message."""

        async def stream() -> AsyncIterator[ImportClientsRequest]:
            for start in range(0, count, 500):
                phones = range(first_phone + start, first_phone + min(start + 500, count))
                yield ImportClientsRequest(
                    clients=[
                        Client(phone=str(phone), timezone="UTC", tag=tag, receive_window=window) for phone in phones
                    ]
                )

        return await ClientServiceStub(self.channel).ImportClients(stream())

    async def create_mailing(self, tags: Iterable[str] = (), **fields: object) -> Mailing:
        """Create a mailing to the clients of these tags (none: to all) and return it."""
        mailing = Mailing(text=TEXT, filter=ClientFilter(tags=tags), **fields)  # type: ignore[arg-type]
        request = CreateMailingRequest(mailing=mailing, request_id=str(uuid.uuid4()))
        return (await MailingServiceStub(self.channel).CreateMailing(request)).mailing

    async def get_mailing(self, mailing_id: int) -> Mailing:
        """Return a mailing with its progress."""
        return (await MailingServiceStub(self.channel).GetMailing(GetMailingRequest(mailing_id=mailing_id))).mailing

    async def completed(self, mailing_id: int, seconds: float = 3600.0, interval: float = 0.2) -> Mailing:
        """Return the mailing once it is COMPLETED, asked for every `interval` seconds.

        Raise BenchmarkFailed when that takes longer than `seconds`.
        """
        ends, shown = time.monotonic() + seconds, 0.0
        while True:
            mailing = await self.get_mailing(mailing_id)
            if mailing.state == Mailing.STATE_COMPLETED:
                return mailing
            if (now := time.monotonic()) > ends:
                raise BenchmarkFailed(f"not completed within {seconds:.0f} s: {mailing.progress}")
            if now > shown + 2:
                shown = now
                say(f"  {mailing.progress.delivered:,} of {mailing.progress.total:,} delivered")
            await asyncio.sleep(interval)

    async def phones(self) -> dict[int, str]:
        """Return the phones of all clients by their ids."""
        return {row["id"]: row["phone"] for row in await self.postgres.fetch("SELECT id, phone FROM clients")}

    async def ledger_ids(self, mailing_id: int) -> Counter[int]:
        """Return the ids of a mailing's delivered messages, as the ledger has them."""
        rows = await self.postgres.fetch(
            "SELECT mailing_id << 32 | client_id FROM ledger WHERE mailing_id = $1 AND status = 2", mailing_id
        )
        return Counter(row[0] for row in rows)


@contextlib.asynccontextmanager
async def running_service(
    endpoint_url: str, arguments: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    """Lend a service on a fresh database that delivers to `endpoint_url`; it is stopped at the end.

    `arguments` are added to `mailing-server serve`, `settings` to its environment. Raise
    BenchmarkFailed when it does not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailing-bench-")))
        # Postgres does not run as root; where it runs as somebody else, they pass through here.
        os.chmod(folder, 0o711)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAILING_", "POSTGRES_")) and name != "AUTHTOKEN"
        }
        environment |= {
            "MAILING_DATA_DIR": str(folder / "data"),
            "MAILING_ENDPOINT_URL": endpoint_url,
            "MAILING_ENDPOINT_TOKEN": "bench",
            **(settings or {}),
        }
        if server := os.environ.get("MAILING_DSN"):
            environment["MAILING_DSN"] = await stack.enter_async_context(_throwaway_database(server))
        process = await _spawn(environment, folder, arguments)
        stack.push_async_callback(_stop, process)
        address = await _address(process, folder)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]))
        postgres, postmaster = await _connect(process.pid, environment.get("MAILING_DSN"))
        stack.push_async_callback(postgres.close, timeout=5)
        say(f"serving on {address}, process {process.pid}")
        yield Service(process, channel, address, postgres, postmaster)
        if process.returncode is not None:
            raise BenchmarkFailed(f"the service ended with status {process.returncode}:\n{_tail(folder)}")


async def _spawn(environment: dict[str, str], folder: Path, arguments: Sequence[str]) -> asyncio.subprocess.Process:
    command = str(Path(sys.executable).with_name("mailing-server"))
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            *(command, "serve", "--listen", "127.0.0.1:0", *arguments), env=environment, stdout=output, stderr=errors
        )


async def _address(process: asyncio.subprocess.Process, folder: Path) -> str:
    """Return the address the service prints once it serves."""
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends:
        if found := _SERVING.search((folder / "stdout").read_text()):
            return found[1]
        if process.returncode is not None:
            raise BenchmarkFailed(f"the service ended with status {process.returncode}:\n{_tail(folder)}")
        await asyncio.sleep(0.02)
    raise BenchmarkFailed(f"the service did not serve within {_START_SECONDS:.0f} s:\n{_tail(folder)}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            say("the service did not stop when asked to; killing it")
            process.kill()
            await process.wait()


def _tail(folder: Path) -> str:
    return "\n".join((folder / "stderr").read_text(errors="replace").splitlines()[-15:])


async def _connect(pid: int, dsn: str | None) -> tuple[asyncpg.Connection, int | None]:
    """Return a connection to the service's database and the server's first process."""
    if dsn:
        return await asyncpg.connect(dsn), None
    postmaster = next((child for child in descendants(pid) if is_postgres(child)), None)
    if postmaster is None:
        raise BenchmarkFailed("the service has no Postgres of its own and MAILING_DSN is not set")
    port, host = _socket(postmaster)
    for database in ("mailing", "postgres"):
        with contextlib.suppress(asyncpg.InvalidCatalogNameError):
            connection = await asyncpg.connect(host=host, port=port, user="postgres", database=database)
            if await connection.fetchval("SELECT to_regclass('messages') IS NOT NULL"):
                return connection, postmaster
            await connection.close()
    raise BenchmarkFailed("the service's Postgres has no ledger")


def _socket(postmaster: int) -> tuple[int, str]:
    """Return port and socket folder of a running Postgres, which keeps them in its data folder."""
    lines = Path(f"/proc/{postmaster}/cwd/postmaster.pid").read_text().splitlines()
    return int(lines[3]), lines[4]


@contextlib.asynccontextmanager
async def _throwaway_database(server: str) -> AsyncIterator[str]:
    name = f"mailing_bench_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()
