"""`mailing health`: the health check for probes and scripts, by grpc.health.v1.

The exit status is the answer: OK, or UNREACHABLE.
"""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import print_json
from mailing.errors import MailingError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "health")(health)


def health(
    session: Session,
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="One service, such as mailing.v1.ClientService; else all.")
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds to wait.")] = 5.0,
) -> None:
    """Health check: exit status 0 when the service can answer calls, 3 when not.

    It cannot while its database is unreachable, or during shutdown.
    """
    with session.connected() as client:
        try:
            serving = client.health(service, timeout=timeout)
        except MailingError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise CommandError(f"there is no service {service!r} at {session.address}", ExitStatus.BAD_INPUT) from error
    if session.json:
        print_json(session, {"serving": serving})
    if not serving:
        raise CommandError(f"the service at {session.address} cannot answer calls now", ExitStatus.UNREACHABLE)
    if not session.json:
        session.out.print("serving")
