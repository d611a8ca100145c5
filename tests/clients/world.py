"""What a driver of the scenario meets: two replicas with a relay before them, TLS, peers, and a door for commands."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from mailing import MailingClient, MailingError
from server.api.interceptors.limits import CallLimits
from server.api.tls import ServerTls
from server.auth import Authenticator
from server.auth.tokens_file import TokensFile, new_token, token_line
from server.config import Settings
from server.runtime.api_settings import ApiSettings
from server.storage.pool import open_pool
from tests.clients.peers import ScriptedService, page_by_http2, web_server
from tests.clients.relay import Relay
from tests.support.api import serving
from tests.support.eventually import eventually
from tests.support.processes import command
from tests.support.tls import TlsFolder

START_SECONDS = 60
_STRICT = ApiSettings(limits=CallLimits(recheck=0.2))
"""Streams end this many seconds after their token was found revoked."""

FIRST_MAILING = 3_000_000
"""Message ids of this mailing and later ones need more than 53 bits."""

_FORGET = """
UPDATE journal_floors f SET floor = b.journal_seq FROM buckets b WHERE b.bucket = f.bucket;
DELETE FROM journal;
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Replica:
    """A service of its own process, on a port that it keeps."""

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self._settings = settings | {"MAILING_LISTEN": f"127.0.0.1:{self.port}", "MAILING_ADMIN_LISTEN": "off"}
        self._process: Process | None = None

    async def start(self) -> None:
        words, environment = command("serve", **self._settings)
        self._process = await asyncio.create_subprocess_exec(*words, env=environment, stdout=PIPE, stderr=DEVNULL)
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        assert line.startswith(b"serving on "), "the service did not start"

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()


class World:
    """Everything that the scenario's variables name, and what its commands do."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.variables: dict[str, str] = {}
        self._dsn = dsn
        self._folder = folder
        self._tokens = {name: new_token() for name in ("token", "reader", "old", "brief", "short", "fresh")}
        self._revoked: set[str] = set()
        self._scripted = ScriptedService()

    @asynccontextmanager
    async def running(self, endpoint: str, endpoint_token: str) -> AsyncIterator[dict[str, str]]:
        """Start everything; lend the variables."""
        await self._execute(f"ALTER SEQUENCE mailing_id RESTART WITH {FIRST_MAILING}")
        self._write_tokens()
        async with AsyncExitStack() as stack:
            await self._start_replicas(stack, endpoint, endpoint_token)
            await self._start_guarded(stack)
            self.variables |= self._tokens | {
                "peer": await stack.enter_async_context(self._scripted.serving()),
                "html": await stack.enter_async_context(web_server()),
                "proxy": await stack.enter_async_context(page_by_http2()),
                "nobody": f"127.0.0.1:{free_port()}",
                "control": await stack.enter_async_context(self._door()),
            }
            yield self.variables

    async def _start_replicas(self, stack: AsyncExitStack, endpoint: str, endpoint_token: str) -> None:
        settings = {
            "MAILING_DSN": self._dsn,
            "MAILING_ENDPOINT_URL": endpoint,
            "MAILING_ENDPOINT_TOKEN": endpoint_token,
            "MAILING_TOKENS_FILE": str(self._tokens_file),
            # The batches of a replica that is killed are free again soon.
            "MAILING_ENDPOINT_TIMEOUT": "2",
            "MAILING_LEASE": "11",
        }
        self._replicas = [Replica(**settings), Replica(**settings)]
        for replica in self._replicas:
            stack.push_async_callback(replica.kill)
        await asyncio.gather(*(replica.start() for replica in self._replicas))
        # The second one first: it is the one that is killed.
        self._relay = Relay([replica.port for replica in reversed(self._replicas)])
        self.variables["relay"] = await stack.enter_async_context(self._relay.serving())
        self.variables["service"] = f"127.0.0.1:{self._replicas[0].port}"
        self.variables["anew"] = await stack.enter_async_context(Relay([self._replicas[0].port]).serving())

    async def _start_guarded(self, stack: AsyncExitStack) -> None:
        """Serve by TLS, by mutual TLS, and with streams that end soon after their token; write the callers' files."""
        files = TlsFolder(self._folder)
        pool = await stack.enter_async_context(open_pool(self._dsn, Settings()))
        for name, tls, authenticator in (
            ("tls", ServerTls(files.files), Authenticator(TokensFile(self._tokens_file))),
            ("mtls", ServerTls(replace(files.files, client_authority=files.ca_file)), Authenticator(certificates=True)),
            ("strict", None, Authenticator(TokensFile(self._tokens_file))),
        ):
            served = serving(pool, tls=tls, authenticator=authenticator, settings=_STRICT)
            _, address = await stack.enter_async_context(served)
            self.variables[name] = address
        chain, key = files.caller("shop.example.com")
        trustme.CA().cert_pem.write_to_path(str(self._folder / "other_ca.pem"))
        (self._folder / "cert.pem").write_bytes(chain)
        secret = load_pem_private_key(key, None)
        # Java reads PKCS #8 alone.
        pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self._folder / "key.pem").write_bytes(pem)
        self.variables |= {name: str(self._folder / f"{name}.pem") for name in ("ca", "other_ca", "cert", "key")}

    @property
    def _tokens_file(self) -> Path:
        return self._folder / "tokens"

    def _write_tokens(self) -> None:
        scopes = {"reader": ["clients.read"]}
        kept = {name: token for name, token in self._tokens.items() if name not in self._revoked}
        lines = [token_line(name, token, scopes.get(name, ["all"])) for name, token in kept.items()]
        written = self._folder / "tokens.new"
        written.write_text("".join(f"{line}\n" for line in lines))
        written.replace(self._tokens_file)  # at once: a replica may read it at any moment

    async def _execute(self, statements: str) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    async def _obey(self, wanted: dict[str, Any]) -> dict[str, Any]:
        match wanted.pop("do"):
            case "cut":
                self._relay.cut(**wanted)
            case "restart":
                await self._replicas[1].restart()
            case "freeze":
                self._relay.freeze()
            case "relay":
                return self._relay.told()
            case "revoke":
                await self._revoke(wanted["token"])
            case "forget":
                await self._execute(_FORGET)
                await asyncio.gather(*(replica.restart() for replica in self._replicas))
            case "peer":
                return {"testMessages": self._scripted.test_messages}
        return {}

    async def _revoke(self, name: str) -> None:
        self._revoked.add(name)
        self._write_tokens()
        for replica in self._replicas:
            await eventually(partial(asyncio.to_thread, self._refused, replica.port, name))

    def _refused(self, port: int, name: str) -> bool:
        """Return whether a replica refuses the token."""
        with MailingClient.connect(f"127.0.0.1:{port}", self._tokens[name]) as client:
            try:
                client.get_client(1)
            except MailingError as error:
                return error.code is grpc.StatusCode.UNAUTHENTICATED
        return False

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[str]:
        """Take commands by HTTP; lend the URL."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            body = json.dumps(await self._obey(json.loads(await reader.readexactly(length)))).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            server.close()
