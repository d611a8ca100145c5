"""`mailing ledger verify`: whether the records of the service agree with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mailing.cli.failures import ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.output import print_list
from mailing.cli.terminal.tables import enum_name
from mailing.cli.terminal.words import plain
from mailing.v1.ledger_pb2 import LedgerFinding

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="The records of what was sent to whom.")

_COLUMNS = ("kind", ">bucket", ">mailing", ">client", "~found", "repairable")


@command(app, "verify")
def verify(
    session: Session,
    mailing_id: Annotated[int, typer.Option("--mailing-id", metavar="ID", help="Of this mailing only.")] = 0,
) -> None:
    """Check that messages, open work, counters, change feed and keys agree, while the service runs.

    Changes nothing; `mailing-server verify --repair` does. The exit status is 1 when something is wrong.
    """
    findings: list[LedgerFinding] = []
    with session.connected() as client, _progress(session) as show:
        for response in client.verify_ledger(mailing_id):
            findings += response.findings
            show(response.checked)
    if findings or session.json:
        print_list(session, "findings", findings, 0, _COLUMNS, _row)
    else:
        session.out.print("The records agree.")
    if findings:
        raise typer.Exit(ExitStatus.FAILED)


@contextmanager
def _progress(session: Session) -> Iterator[Callable[[float], None]]:
    """Show which share was looked at, on a terminal."""
    if not session.err.is_terminal:
        yield lambda share: None
        return
    columns = (TextColumn("verifying"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=session.err, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _row(finding: LedgerFinding) -> Sequence[str]:
    return (
        plain(enum_name(finding, "kind")),
        str(finding.bucket),
        str(finding.mailing_id or ""),
        str(finding.client_id or ""),
        finding.text,
        "yes" if finding.repairable else "",
    )
