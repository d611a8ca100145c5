"""`mailing-server`: the commands of an operator, run on the machine of the service.

Owns their options and what they print; what they do is done by `server.main`. Options win over
the environment, the environment over the file of settings. `main` is also what `mailing serve`
calls, by the entry points of the group `mailing.commands`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mailing.channel import product_version
from mailing.cli.commands.options import read_pairs
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.runner import new_app, run
from mailing.cli.session import JsonOption, Session
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.output import print_json
from mailing.cli.terminal.tables import cell, new_table
from server.auth.tokens_file import new_token, token_line
from server.config import ConfigError, Loaded, load, rows_in_force
from server.domain.findings import Finding
from server.domain.principals import ROLES

PROGRAM = "mailing-server"

_PANEL = "Settings"
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="TOML file of settings; else MAILING_CONFIG_FILE.", rich_help_panel=_PANEL
    ),
]
Assignments = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="NAME=VALUE", help="One setting, such as pool_size=20; repeatable.", rich_help_panel=_PANEL
    ),
]

app = new_app(name=PROGRAM)
tokens = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Static tokens for callers of the service.")
app.add_typer(tokens, name="tokens")
endpoints = typer.Typer(no_args_is_help=True, help="The file that describes endpoints.")
app.add_typer(endpoints, name="endpoints")
report = typer.Typer(no_args_is_help=True, help="The daily report by e-mail.")
app.add_typer(report, name="report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` default to those of the process."""
    return run(app, PROGRAM, arguments)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {product_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run and set up the Mailing service; `mailing` is the command line of its callers."""


@app.command()
def serve(
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where to serve; port 0 takes a free one. Else MAILING_LISTEN, else 127.0.0.1:50051.",
        ),
    ] = None,
    dispatchers: Annotated[
        str | None,
        typer.Option(
            "--dispatchers",
            metavar="N",
            help="Send from N processes beside the server; 0: from inside; auto: one beside it on two CPUs or more.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer everyone who reaches the address, without authentication.")
    ] = False,
    config: ConfigFile = None,
    values: Assignments = [],  # noqa: B006 - typer copies the default
) -> None:
    """Start the service; it runs until Ctrl-C, SIGTERM or SIGHUP.

    `mailing-server config` shows all settings. Without MAILING_DSN it runs a Postgres of its own.
    """
    from server.main import run as serve_until_stopped

    loaded = _loaded(config, values, listen=listen, dispatchers=dispatchers, insecure=insecure or None)
    raise typer.Exit(serve_until_stopped(loaded.settings))


@app.command()
def console(
    address: Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The service that the console shows.")],
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Where to serve; else MAILING_CONSOLE_LISTEN."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS with the service.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="The authority of its certificate; implies --tls.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let everyone who reaches the address in, with the service's open rights."),
    ] = False,
    config: ConfigFile = None,
    values: Assignments = [],  # noqa: B006
) -> None:
    """Serve the console alone, for a service elsewhere; it runs until Ctrl-C or SIGTERM."""
    from server.main import run_console

    loaded = _loaded(config, values, console_listen=listen, insecure=insecure or None)
    raise typer.Exit(run_console(loaded.settings, address, tls or ca_file is not None, ca_file))


@app.command()
def dispatcher(config: ConfigFile = None, values: Assignments = []) -> None:  # noqa: B006
    """Run a dispatcher alone, for a service on the same database."""
    from server.main import run_dispatcher

    raise typer.Exit(run_dispatcher(_loaded(config, values).settings))


@app.command()
def migrate(
    distribute: Annotated[
        bool,
        typer.Option(
            "--distribute", help="Lay the tables out over the workers of a Citus cluster, or check that they are."
        ),
    ] = False,
    config: ConfigFile = None,
    values: Assignments = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Upgrade the database schema to this release; the service does so itself when it starts."""
    from server.main import run_migrations

    applied: list[str] = []
    tables: list[str] = []
    status = run_migrations(_loaded(config, values).settings, applied.append, tables.append if distribute else None)
    if json:
        print_json(Session(), {"applied": applied} | ({"distributed": tables} if distribute else {}))
    elif not status:
        print(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")
        if distribute:
            print(f"Laid out over the cluster: {', '.join(tables)}." if tables else "All tables are laid out.")
    raise typer.Exit(status)


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set counters right and put lost messages back into open batches.")
    ] = False,
    config: ConfigFile = None,
    values: Assignments = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Check that messages, open work, counters, change feed and keys agree, and that a cluster is as it should be.

    The service may run meanwhile.

    Exits with 1 when something is wrong. With `--repair` it shows what is left.
    """
    from server.main import run_verification

    findings: list[Finding] = []
    status = run_verification(_loaded(config, values).settings, repair, findings.append)
    if json:
        print_json(Session(), {"findings": [asdict(one) | {"kind": one.kind.name} for one in findings]})
    elif findings:
        table = new_table("Check", "Bucket", "Mailing", "Found")
        for one in findings:
            bucket = "" if one.bucket is None else str(one.bucket)
            table.add_row(cell(one.check), bucket, str(one.mailing_id or ""), cell(one.found))
        Session().out.print(table)
    elif not status:
        print("The records agree.")
    raise typer.Exit(status or int(bool(findings)))


@app.command("config")
def show_config(config: ConfigFile = None, values: Assignments = [], json: JsonOption = False) -> None:  # noqa: B006
    """Show the settings that would be in force here, and where each comes from; secrets are masked."""
    session, rows = Session(), rows_in_force(_loaded(config, values))
    if json:
        print_json(session, {"settings": rows})
        return
    table = new_table("Setting", "Value", "From")
    for row in rows:
        value = "" if row["value"] is None else str(row["value"])
        place = "" if row["from"] == "default" else str(row["from"])
        table.add_row(cell(str(row["name"])), cell(value), cell(place))
    session.out.print(table)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Who calls with it, as logs will name them.")],
    role: Annotated[
        str | None,
        typer.Option("--role", metavar="ROLE", help=f"The scopes of a role: {', '.join(ROLES)}."),
    ] = None,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", metavar="SCOPE", help="A permission, such as mailings.read; repeat for several, or all."
        ),
    ] = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Make a token, shown once, and the line that MAILING_TOKENS_FILE needs for it.

    Nothing is stored here, and the service keeps nothing but the hash in that line.
    """
    token = new_token()
    try:
        line = token_line(name, token, _scopes(role, scope))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if json:
        print_json(Session(), {"name": name, "token": token, "line": line})
        return
    print("The token, shown only this once, and the line that MAILING_TOKENS_FILE needs for it:", file=sys.stderr)
    print(token)
    print(line)


def _scopes(role: str | None, scopes: list[str]) -> list[str]:
    """Return the scopes that one of the two names. Raise BadParameter for both, neither, and an unknown role."""
    if (role is None) == (not scopes):
        raise typer.BadParameter("Give either --role or --scope: one of them says what the caller may do")
    if role is None:
        return scopes
    if role not in ROLES:
        raise typer.BadParameter(f"{role[:80]!r} is no role: there are {', '.join(ROLES)}")
    return [*ROLES[role]]


@report.command("send")
def send_report(
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="ADDRESS", help="Who gets it; repeat for several, or separate by commas."),
    ] = [],  # noqa: B006
    day: Annotated[
        datetime | None,
        typer.Option("--date", metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="The day; else yesterday."),
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print the plain text, and send nothing.")] = False,
    config: ConfigFile = None,
    values: Assignments = [],  # noqa: B006
) -> None:
    """Send the report of a day now, or print it; the mail of the day is sent all the same."""
    from server.main import run_report

    if bool(to) == show:
        raise typer.BadParameter("Give either --to or --print: where the report goes")
    raise typer.Exit(run_report(_loaded(config, values).settings, day.date() if day else None, ",".join(to), print))


@endpoints.command("check")
def check_endpoints(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An endpoints file, as for MAILING_ENDPOINTS_FILE.")],
    json: JsonOption = False,
) -> None:
    """Explain an endpoints file: a sample request, and what each kind of answer would mean; nothing is sent.

    Secrets are masked. Exits with 2 for a file that cannot be used.
    """
    from server.endpoints.endpoint_check import check_file, lines_of

    try:
        checks = check_file(file)
    except ConfigError as error:
        raise CommandError(" ".join(error.problems), ExitStatus.BAD_INPUT) from None
    if json:
        print_json(Session(), {"endpoints": [asdict(one) for one in checks]})
        return
    for line in lines_of(checks):
        print(line)


def _loaded(config: Path | None, values: list[str], **options: Any) -> Loaded:
    """Return the settings and their places; raise CommandError for those that cannot be used."""
    given = read_pairs("--set", values) | {name: one for name, one in options.items() if one is not None}
    try:
        return load(config, given)
    except ConfigError as error:
        raise CommandError(" ".join(error.problems), ExitStatus.BAD_INPUT) from None
