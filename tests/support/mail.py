"""A real mail server of a test: it keeps what it takes, and refuses what it is asked to."""

from __future__ import annotations

import socket
import ssl
from asyncio import Event, get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Mailbox:
    """What a mail server got. It refuses the recipients in `refused`, and each mail with `answer` where that is set.

    A mail waits for `open` before it is answered; `begun` is set when one has come.
    """

    refused: set[str] = field(default_factory=set)
    answer: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    open: Event = field(default_factory=Event)
    begun: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.begun.set()
        if self.answer:
            return self.answer
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        await self.open.wait()
        return "250 taken"

    def authenticate(self, *given: Any) -> AuthResult:
        credentials = given[-1]
        assert isinstance(credentials, LoginPassword)
        self.users.append(credentials.login.decode())
        return AuthResult(success=credentials.password == b"secret")


@asynccontextmanager
async def serving_mail(
    box: Mailbox, port: int = 0, context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    """Run a mail server inside the block and yield its port; with a `context` it wants STARTTLS."""
    loop = get_running_loop()
    settings = {"tls_context": context, "require_starttls": context is not None} | options

    def session() -> SMTP:
        return SMTP(box, hostname="mail.test", loop=loop, **settings)

    server = await loop.create_server(session, "127.0.0.1", port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def zone_at(hour: int) -> str:
    """Return a zone whose clocks show this hour now."""
    offset = hour - (datetime.now(UTC) + timedelta(seconds=30)).hour
    offset += 24 if offset < -12 else 0
    return f"Etc/GMT{-offset:+d}" if offset else "UTC"


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
