"""What every command is given: the service's address, the form of output, and the consoles.

Also owns how a command is registered, so that `--address` and `--json` are understood both
before and after the command's name.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import grpc
import typer
from rich.console import Console

from mailing import MailingClient, MailingError, tls_credentials
from mailing.cli.failures import CommandError, ExitStatus, ReaderGoneError, from_call
from mailing.cli.tls_probe import answers_with_tls

DEFAULT_ADDRESS = "127.0.0.1:50051"
ADDRESS_VARIABLE = "MAILING_ADDRESS"
TOKEN_VARIABLE = "MAILING_TOKEN"  # noqa: S105 - the variable's name, not a token
TLS_VARIABLE = "MAILING_TLS"
FILE_VARIABLES = ("MAILING_CA_FILE", "MAILING_CERT_FILE", "MAILING_KEY_FILE")
"""PEM files: the authority to trust, the caller's certificate, its key. Any of them means TLS."""
_PIPE_WIDTH = 100_000
"""Lines that do not go to a terminal are neither folded nor cut."""

_GLOBAL = "Global options"
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=f"Address of the service; else {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS}.",
        rich_help_panel=_GLOBAL,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Answer with one JSON document on standard output.", rich_help_panel=_GLOBAL)
]


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


WideOption = Annotated[
    bool,
    typer.Option("--wide", help="Cut nothing: all columns, wider than the terminal.", rich_help_panel=_GLOBAL),
]


@dataclass(slots=True)
class Session:
    """The settings of one invocation."""

    address: str = field(default_factory=lambda: os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    """The variables for the token and for TLS."""
    json: bool = False
    wide: bool = False
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    def override(self, address: str | None, json: bool, wide: bool = False) -> None:
        """Take over the global options that were given."""
        self.address = address or self.address
        self.json = self.json or json
        self.wide = self.wide or wide
        if wide:
            self.out.width = _PIPE_WIDTH

    @contextmanager
    def connected(self) -> Iterator[MailingClient]:
        """Yield a client of the service; a failed call in the block ends the command with a sentence."""
        token = self.environment.get(TOKEN_VARIABLE) or None
        credentials = _credentials(self.environment)
        try:
            connection = MailingClient.connect(self.address, token, credentials=credentials)
        except ValueError as error:
            raise CommandError(str(error), ExitStatus.BAD_INPUT) from None
        with connection as client:
            try:
                yield client
            except MailingError as error:
                silent = error.code is grpc.StatusCode.UNAVAILABLE and not error.reason
                if silent and credentials is None and answers_with_tls(self.address):
                    sentence = f"{self.address} answers with TLS: set MAILING_CA_FILE, or MAILING_TLS=1"
                    raise CommandError(sentence, ExitStatus.UNREACHABLE) from error
                raise from_call(error, self.address) from error


def _credentials(environment: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    """Return credentials for TLS when the environment asks for it."""
    files = [environment.get(name) or None for name in FILE_VARIABLES]
    if not any(files) and environment.get(TLS_VARIABLE, "").lower() not in ("1", "true", "yes", "on"):
        return None
    try:
        return tls_credentials(*files)
    except ValueError:
        raise CommandError(f"{FILE_VARIABLES[1]} and {FILE_VARIABLES[2]} go together", ExitStatus.BAD_INPUT) from None
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be read: {error.strerror}", ExitStatus.BAD_INPUT) from None


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function whose first parameter is the session as a command of `app`.

    A parameter whose type is a dataclass stands for the options that its fields are.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(ctx: typer.Context, address: str | None, json: bool, wide: bool, **options: Any) -> None:
            session = ctx.ensure_object(Session)
            session.override(address, json, wide)
            for parameter, kind in groups.items():
                options[parameter] = kind(**{one.name: options.pop(one.name) for one in fields(kind)})
            try:
                function(session, **options)
            except BrokenPipeError:
                # Typer would make a failure of it.
                raise ReaderGoneError from None

        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        groups = {one.name: hints[one.name] for one in parameters if is_dataclass(hints[one.name])}
        own = [option for one in parameters for option in _options(one, hints[one.name])]
        keyword = inspect.Parameter.KEYWORD_ONLY
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
                *(parameter.replace(kind=keyword) for parameter in own),
                inspect.Parameter("address", keyword, default=None, annotation=AddressOption),
                inspect.Parameter("json", keyword, default=False, annotation=JsonOption),
                inspect.Parameter("wide", keyword, default=False, annotation=WideOption),
            ]
        )
        run.__annotations__ = {"ctx": typer.Context}
        app.command(name, **settings)(run)
        return function

    return register


def _options(parameter: inspect.Parameter, hint: Any) -> list[inspect.Parameter]:
    """Return the parameters that stand for one: itself, or what the fields of its dataclass are."""
    if not is_dataclass(hint):
        return [parameter.replace(annotation=hint)]
    hints = get_type_hints(hint, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default if one.default_factory is MISSING else one.default_factory(),
            annotation=hints[one.name],
        )
        for one in fields(hint)
    ]
