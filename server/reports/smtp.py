"""Sends one mail over SMTP, and knows whether it may have arrived.

All recipients are named before the mail leaves, and `hand_over` is asked in between: so it is known what surely did not
arrive.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

TIMEOUT = 30.0
"""Seconds that each step may take."""


class MailRefused(Exception):
    """The mail server surely does not have the mail; the message says why."""


class MailUncertain(Exception):
    """The mail was handed over and no answer came: it may have arrived."""


class HandedOverElsewhere(Exception):
    """Somebody else sends the mail."""


class MailServer(NamedTuple):
    """A mail server, and who sends there. A password is read from its file for each mail."""

    host: str
    port: int
    tls: Literal["starttls", "tls", "off"] = "starttls"
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


async def send(
    server: MailServer,
    sender: str,
    recipients: Sequence[str],
    mail: bytes,
    hand_over: Callable[[], Awaitable[bool]],
) -> dict[str, str]:
    """Send a mail; return the recipients that were refused while others were not, with the reasons.

    `hand_over` is asked before the mail leaves and returns False to stop it. Raise MailRefused, MailUncertain, and
    HandedOverElsewhere.
    """
    smtp = await _connected(server)
    try:
        refused = await _addressed(smtp, sender, recipients)
        if not await hand_over():
            raise HandedOverElsewhere
        try:
            await smtp.data(mail)
        except SMTPResponseException as error:
            raise MailRefused(f"it refused the mail: {error.code} {error.message}") from error
        except (SMTPException, OSError) as error:
            raise MailUncertain(str(error) or type(error).__name__) from error
        with suppress(SMTPException, OSError):  # it has the mail: how the connection ends does not matter
            await smtp.quit()
        return refused
    finally:
        smtp.close()


async def _connected(server: MailServer) -> SMTP:
    try:
        smtp = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=server.password_file.read_text(encoding="utf-8").rstrip("\r\n") if server.password_file else None,
            timeout=TIMEOUT,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            tls_context=None if server.tls == "off" else ssl.create_default_context(cafile=server.ca_file),
        )
        await smtp.connect()
    except SMTPResponseException as error:
        raise MailRefused(f"it answered {error.code} {error.message}") from error
    except (SMTPException, OSError, ValueError) as error:
        raise MailRefused(f"it cannot be reached: {str(error) or type(error).__name__}") from error
    return smtp


async def _addressed(smtp: SMTP, sender: str, recipients: Sequence[str]) -> dict[str, str]:
    """Name sender and recipients; return those that were refused. Raise MailRefused if all were."""
    refused = {}
    try:
        await smtp.mail(sender)
        for recipient in recipients:
            try:
                await smtp.rcpt(recipient)
            except SMTPResponseException as error:
                refused[recipient] = f"{error.code} {error.message}"
    except SMTPResponseException as error:
        raise MailRefused(f"it refused the sender {sender}: {error.code} {error.message}") from error
    except (SMTPException, OSError) as error:
        raise MailRefused(f"the connection was lost: {str(error) or type(error).__name__}") from error
    if len(refused) == len(recipients):
        raise MailRefused(f"it refused every recipient: {'; '.join(f'{one}: {why}' for one, why in refused.items())}")
    return refused
