"""`mailing preview`: what a mailing would do, before anything is sent."""

from __future__ import annotations

from typing import Annotated

import typer

from mailing.cli.commands.mailing_options import TEXT_HELP, NewMailing
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_json, print_table
from mailing.cli.terminal.preview_table import preview_facts, samples_table
from mailing.cli.terminal.tables import facts_table
from mailing.v1.mailing_pb2 import Mailing


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "preview")(preview)


def preview(
    session: Session,
    mailing_id: Annotated[
        int | None, typer.Argument(metavar="ID", help="A stored mailing; else one described by --text and the options.")
    ] = None,
    *,
    text: Annotated[str | None, typer.Option("--text", help=TEXT_HELP)] = None,
    fields: NewMailing,
    samples: Annotated[int, typer.Option("--samples", help="Number of texts to show; 0: three.")] = 0,
) -> None:
    """Show the audience, sample texts and expected end of a mailing; nothing is sent or stored."""
    mailing = _source(mailing_id, text, fields)
    with session.connected() as client:
        answer = client.preview_mailing(mailing, samples)
    if session.json:
        print_json(session, document_of(answer))
        return
    session.out.print(facts_table(preview_facts(answer)))
    if answer.samples:
        print_table(session, samples_table(answer, session.wide))


def _source(mailing_id: int | None, text: str | None, fields: NewMailing) -> Mailing | int:
    if mailing_id is None:
        if text is None:
            raise typer.BadParameter("one of them is needed", param_hint=["ID", "--text"])
        return fields.mailing(text)
    if text is not None or fields.is_given():
        raise typer.BadParameter("a stored mailing is previewed as it is; omit the options", param_hint="ID")
    return mailing_id
