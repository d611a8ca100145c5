"""`mailing mailings create`: shows what would be sent and asks, so that nothing goes to everybody by accident."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from mailing import MailingClient
from mailing.cli.commands.mailing_options import TEXT_HELP, NewMailing
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session
from mailing.cli.terminal.mailing_table import audience_words, mailing_table
from mailing.cli.terminal.output import print_message, print_table
from mailing.cli.terminal.plan import plan_facts, start_facts
from mailing.cli.terminal.preview_table import preview_facts, samples_table
from mailing.cli.terminal.tables import facts_table
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse
from mailing.v1.message_pb2 import Message

SAMPLES = 3
LOOKED_AT = 50
"""Texts whose length is looked at; the first ones are shown."""

MOST_SMS = 3
"""SMS of one message above which it is warned of its price."""

_PAST = 60
"""Seconds by which a start may lie in the past without a warning: it was typed before."""


def create(
    session: Session,
    text: Annotated[str, typer.Option("--text", help=TEXT_HELP)],
    fields: NewMailing,
    everybody: Annotated[bool, typer.Option("--all", help="To all clients; needed where no filter is given.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not show the audience and ask.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="UUID", help="A call repeated with the same id creates nothing new."),
    ] = None,
) -> None:
    """Create a mailing. It starts now, or at its start time.

    Shows whom it reaches, the first texts and the expected end, and asks; with --yes or --json it does not.
    """
    mailing = fields.mailing(text)
    if everybody == (mailing.HasField("filter") or bool(mailing.filter_text)):
        wrong = "goes together with no filter" if everybody else "without a filter everybody gets it: say so"
        raise typer.BadParameter(wrong, param_hint="--all")
    with session.connected() as client:
        if not (yes or session.json):
            _ask(session, client, mailing, fields.says_audience)
        stored = client.create_mailing(mailing, request_id)
    print_message(session, stored, lambda: mailing_table(stored))


def _ask(session: Session, client: MailingClient, mailing: Mailing, says_audience: bool) -> None:
    """Show what the mailing would do, and return if it is wanted; set its audience where nothing says which."""
    answer = client.preview_mailing(mailing, LOOKED_AT)
    found = list(warnings(mailing, answer, datetime.now(UTC)))
    del answer.samples[SAMPLES:]
    session.out.print(facts_table([*preview_facts(answer), *_timing(mailing)]))
    if answer.samples:
        print_table(session, samples_table(answer, session.wide))
    for warning in found:
        session.err.print(f"Warning: {warning}")
    if not sys.stdin.isatty():
        raise CommandError(
            "nothing was created: without a terminal to ask on, repeat with --yes, or with --json in a program",
            ExitStatus.BAD_INPUT,
        )
    if not says_audience and not typer.confirm("Also to clients who are added later, until it ends?", err=True):
        mailing.audience_mode = Mailing.AUDIENCE_MODE_SNAPSHOT
    typer.confirm(f"Send to {answer.audience_size:,} clients ({audience_words(mailing)})?", abort=True, err=True)


def _timing(mailing: Mailing) -> list[tuple[str, str]]:
    """Return to whom, by the filter, and when it would send."""
    facts = [(name, value or "now" if name == "start" else value) for name, value in start_facts(mailing)]
    return [("filter", mailing.filter_text), ("segment", mailing.filter.segment), *facts, *plan_facts(mailing)]


def warnings(mailing: Mailing, answer: PreviewMailingResponse, now: datetime) -> Iterator[str]:
    """Yield what is most likely a mistake."""
    if not answer.audience_size:
        yield "nobody gets it as things are."
    if mailing.HasField("start_time") and mailing.start_time.seconds < now.timestamp() - _PAST:
        yield "its start lies in the past, so it starts at once."
    for one in answer.exclusions:
        if one.reason == Message.REASON_EMPTY_TEXT:
            yield f"the text is empty for {one.count:,} clients, who do not get it."
    parts = max((one.sms_segments for one in answer.samples), default=0)
    if parts > MOST_SMS:
        yield f"a message takes up to {parts} SMS, each of which is paid for."
    if answer.audience_size and answer.sendable_before_end < answer.audience_size:
        yield f"only {answer.sendable_before_end:,} of {answer.audience_size:,} can be sent before its end."
