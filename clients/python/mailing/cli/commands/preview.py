"""`mailing preview`: what a mailing would do, before anything is sent."""

from __future__ import annotations

from typing import Annotated

import typer

from mailing.cli.commands.mailing_options import TEXT_HELP, NewMailing
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_json
from mailing.cli.terminal.tables import cell, enum_name, facts_table, moment, new_table
from mailing.cli.terminal.words import reason_words
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse

_COLUMNS = (">client", ">phone", "due", ">characters", ">SMS", "encoding", "text")


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
    session.out.print(facts_table(_facts(answer)))
    if answer.samples:
        _print_samples(session, answer)


def _source(mailing_id: int | None, text: str | None, fields: NewMailing) -> Mailing | int:
    if mailing_id is None:
        if text is None:
            raise typer.BadParameter("one of them is needed", param_hint=["ID", "--text"])
        return fields.mailing(text)
    if text is not None or fields.is_given():
        raise typer.BadParameter("a stored mailing is previewed as it is; omit the options", param_hint="ID")
    return mailing_id


def _facts(answer: PreviewMailingResponse) -> list[tuple[str, str]]:
    finish = moment(answer.estimated_finish_time)
    if not finish and answer.audience_size:
        finish = (
            "will not finish before the end time"
            if answer.sendable_before_end < answer.audience_size
            else "will not finish within a year"
        )
    return [
        ("audience", f"{answer.audience_size:,}"),
        *((f"left out: {reason_words(enum_name(one, 'reason'))}", f"{one.count:,}") for one in answer.exclusions),
        ("sendable before the end", f"{answer.sendable_before_end:,}"),
        ("expected end", finish),
    ]


def _print_samples(session: Session, answer: PreviewMailingResponse) -> None:
    table = new_table(*_COLUMNS)
    for one in answer.samples:
        row = (
            str(one.client_id),
            one.phone,
            moment(one.due_time),
            f"{one.characters:,}",
            str(one.sms_segments),
            enum_name(one, "sms_encoding"),
            one.text,
        )
        table.add_row(*map(cell, row))
    session.out.print(table)
