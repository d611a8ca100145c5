"""`mailing tokens create`: a token for a caller, and the line by which the service knows it.

Nothing is called and nothing stored: the token is shown once, the service keeps its hash only.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from mailing.cli.output import print_json
from mailing.cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Static tokens for callers of the service.")


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Who calls with it, as logs will name them.")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What they may do, such as mailings.read; repeat for several, all for everything.",
        ),
    ],
) -> None:
    """Make a token, shown once, and the line that MAILING_TOKENS_FILE needs for it."""
    tokens = import_module("server.auth.tokens_file")
    token = tokens.new_token()
    try:
        line = tokens.token_line(name, token, scope)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if session.json:
        print_json(session, {"name": name, "token": token, "line": line})
        return
    session.err.print("The token, which is shown this once, and the line that MAILING_TOKENS_FILE needs for it:")
    session.out.print(token)
    session.out.print(line)
