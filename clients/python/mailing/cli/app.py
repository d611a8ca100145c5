"""The root of the command line: its commands, its global options, and how it ends.

Every end goes through `main`: an exit status of `ExitStatus` and, on failure, one sentence on
standard error. Only a defect of the program itself shows a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from mailing.channel import product_version
from mailing.cli.commands import (
    clients,
    demo,
    dispatchers,
    endpoints,
    health,
    log,
    mailings,
    messages,
    preview,
    report,
    server,
    tail,
    tokens,
    top,
    verbs,
    watch,
)
from mailing.cli.failures import STATUS_HELP, CommandError, ExitStatus, ReaderGoneError
from mailing.cli.session import AddressOption, JsonOption, Session, command
from mailing.cli.terminal.output import print_json

_BROKEN_PIPE = 141
"""What a shell reports of a program whose reader went away."""

_EPILOG = "\n\n".join(["Exit status:", *(f"{status.value}  {meaning}" for status, meaning in STATUS_HELP.items())])

app = typer.Typer(
    name="mailing",
    no_args_is_help=True,
    add_completion=False,
    epilog=_EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(ctx: typer.Context, address: AddressOption = None, json: JsonOption = False) -> None:
    """Every client gets the message once, in their own time window.

    Start the service with `mailing serve`, or see everything work with `mailing demo`.
    """
    session = Session()
    session.override(address, json)
    ctx.obj = session


server.register(app)
health.register(app)
app.add_typer(clients.app, name="clients")
app.add_typer(mailings.app, name="mailings")
app.add_typer(messages.app, name="messages")
verbs.register(app, mailings.app)
endpoints.register(app)
report.register(app)
preview.register(app)
watch.register(app)
tail.register(app)
log.register(app)
app.add_typer(dispatchers.app, name="dispatch")
top.register(app)
app.add_typer(tokens.app, name="tokens")
demo.register(app)


@command(app, "version")
def version(session: Session) -> None:
    """Show the version of this program."""
    if session.json:
        print_json(session, {"version": product_version()})
    else:
        session.out.print(f"mailing {product_version()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; `arguments` default to those of the process."""
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="mailing", standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        return _failed(str(error), error.status)
    except typer.TyperException as error:
        return _failed(_usage(error.format_message()), ExitStatus.BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return ExitStatus.INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        # The interpreter must not complain when it flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return status or ExitStatus.OK


def _failed(sentence: str, status: ExitStatus) -> int:
    sys.stdout.flush()
    # Without a sentence the help was printed instead.
    if sentence:
        print(f"mailing: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _usage(message: str) -> str:
    sentence = message.strip().removesuffix(".")
    return f"{sentence[:1].lower()}{sentence[1:]} (--help shows how)" if sentence else ""
