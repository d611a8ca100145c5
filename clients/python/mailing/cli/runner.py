"""How a command line is set up and how it ends; `mailing` and `mailing-server` share it.

Every end goes through `run`: an exit status of `ExitStatus` and, on failure, one sentence on
standard error. Only a bug in the program itself shows a traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from mailing.cli.failures import CommandError, ExitStatus, ReaderGoneError, printable
from mailing.cli.suggestions import SuggestingGroup

_SHOWN = 60
"""The most characters of a bad argument that are shown."""

_BROKEN_PIPE = 141
"""What a shell reports of a program whose reader went away."""


def new_app(**settings: Any) -> typer.Typer:
    """Return an application without commands; `settings` are typer's own."""
    return typer.Typer(
        cls=SuggestingGroup,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def run(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of `app` and return its exit status; `arguments` default to those of the process."""
    _set_encoding()
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(program, str(error), error.status, error.picture)
    except typer.TyperException as error:
        return _fail(program, _usage(error.format_message()), ExitStatus.BAD_INPUT)
    except UnicodeEncodeError as error:
        # Bytes of an argument or a variable that are not UTF-8 become lone surrogates.
        return _fail(program, f"not UTF-8: {error.object[:_SHOWN]!a}", ExitStatus.BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return ExitStatus.INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        # The interpreter must not complain when it flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return status or ExitStatus.OK


def _set_encoding() -> None:
    """Write UTF-8 to files and pipes whatever the locale says, and to a terminal what it can show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _fail(program: str, sentence: str, status: ExitStatus, picture: Sequence[str] = ()) -> int:
    sys.stdout.flush()
    # Without a sentence the help was printed instead.
    if sentence:
        print(f"{program}: {printable(' '.join(sentence.split()))}", file=sys.stderr)
    for line in picture:
        print(printable(line), file=sys.stderr)
    return status


def _usage(message: str) -> str:
    sentence = message.strip().removesuffix(".")
    return f"{sentence[:1].lower()}{sentence[1:]} (--help shows how)" if sentence else ""
