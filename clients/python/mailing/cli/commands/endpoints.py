"""`mailing endpoints` and `mailing test`: where messages go, and whether they would arrive.

A request that the endpoint did not accept ends with UNDELIVERED and a sentence that says how
far it got.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from google.protobuf.message import Message as ProtoMessage

from mailing import new_mailing
from mailing.cli.commands.options import OfCountry, read_phone
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import print_list, print_message
from mailing.cli.terminal.tables import enum_name, facts_table, moment
from mailing.cli.terminal.words import attempt_words, error_words
from mailing.v1.dispatch_pb2 import Endpoint
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Attempt

_LARGEST_ID = 2**63 - 1
_UNAUTHORIZED = (401, 403)
_NO_RESPONSE = {
    Attempt.ERROR_CLASS_CONNECT: "no connection could be opened",
    Attempt.ERROR_CLASS_RESOLVE: "its host does not resolve",
    Attempt.ERROR_CLASS_TLS: "TLS failed",
    Attempt.ERROR_CLASS_TIMEOUT: "it did not answer in time",
    Attempt.ERROR_CLASS_DISCONNECT: "the connection ended before the answer did",
    Attempt.ERROR_CLASS_PROTOCOL: "its answer is not HTTP",
    Attempt.ERROR_CLASS_LOCAL: "this machine could not make the request, as without free file descriptors",
    Attempt.ERROR_CLASS_TOO_LARGE: "its answer is larger than the limit",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app, "endpoints")(endpoints)
    command(app, "test")(send_test_message)


def endpoints(
    session: Session,
    probe: Annotated[
        str | None,
        typer.Option("--probe", metavar="NAME", help="Make one request to this endpoint; no client is sent anything."),
    ] = None,
) -> None:
    """List the endpoints with their status, or probe one.

    The exit status of a probe is 0 when the endpoint accepted it and 4 when it did not; a healthy
    endpoint may refuse it, since its phone is 0.
    """
    with session.connected() as client:
        if probe is None:
            columns = ("~name", "~url", ">max rate", "breaker", "~last error")
            print_list(session, "endpoints", client.list_endpoints(), 0, columns, _row, ">max in flight", ">sent today")
            return
        attempt = client.probe_endpoint(probe)
    _report(session, attempt, attempt, [])


def send_test_message(
    session: Session,
    target: Annotated[
        list[str],
        typer.Argument(metavar="[MAILING_ID] PHONE", help="The mailing's id, unless --text is given, and the phone."),
    ],
    text: Annotated[str | None, typer.Option("--text", help="Text to send instead of a stored mailing's.")] = None,
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="With --text: name of the endpoint; '': the default one.")
    ] = "",
    country: OfCountry = None,
    force: Annotated[bool, typer.Option("--force", help="Also to a client who has opted out.")] = False,
) -> None:
    """Send one message of a mailing to one phone now; it belongs to no mailing, the event log has it.

    Receive windows and rates do not apply, opt-outs do. The exit status is 0 when the
    endpoint accepted the message and 4 when it did not.
    """
    source, written = _source(target, text, endpoint)
    phone = read_phone("PHONE", written, country)
    with session.connected() as client:
        sent = client.send_test_message(source, phone, force=force)
    _report(session, sent, sent.attempt, [("message", str(sent.message_id)), ("phone", phone), ("text", sent.text)])


def _source(target: list[str], text: str | None, endpoint: str) -> tuple[int | Mailing, str]:
    """Return what is to be sent, and the phone as it was typed."""
    if text is not None:
        if len(target) != 1:
            raise typer.BadParameter("with --text only the phone is needed", param_hint="[MAILING_ID] PHONE")
        mailing = new_mailing(text)
        mailing.endpoint = endpoint
        return mailing, target[0]
    if len(target) != 2 or not target[0].isdecimal() or int(target[0]) > _LARGEST_ID:
        raise typer.BadParameter("a mailing's id and a phone are needed", param_hint="[MAILING_ID] PHONE")
    if endpoint:
        raise typer.BadParameter("a stored mailing has its own endpoint", param_hint="--endpoint")
    return int(target[0]), target[1]


def _report(session: Session, answer: ProtoMessage, attempt: Attempt, facts: list[tuple[str, str]]) -> None:
    """Print the outcome of a request; raise CommandError unless the endpoint accepted it."""
    print_message(session, answer, lambda: facts_table([*facts, *_facts(attempt)]))
    if attempt.error_class:
        raise CommandError(f"endpoint {attempt.endpoint}: {_why(attempt)}", ExitStatus.UNDELIVERED)


def _facts(attempt: Attempt) -> list[tuple[str, str]]:
    return [
        ("endpoint", attempt.endpoint),
        ("outcome", error_words(enum_name(attempt, "error_class")) or "delivered"),
        ("HTTP", str(attempt.endpoint_status or "")),
        ("code", str(attempt.endpoint_code) if attempt.HasField("endpoint_code") else ""),
        ("time", moment(attempt.time)),
        ("took", f"{attempt.duration.ToMicroseconds() / 1000:,.1f} ms"),
        ("answer", attempt.response_excerpt),
    ]


def _why(attempt: Attempt) -> str:
    if why := _NO_RESPONSE.get(attempt.error_class):
        return why
    if attempt.endpoint_status in _UNAUTHORIZED:
        return f"it was reached and refused the token with HTTP {attempt.endpoint_status}"
    return f"it was reached and answered, but: {attempt_words(attempt)}"


def _row(endpoint: Endpoint) -> Sequence[str]:
    return (
        endpoint.name,
        endpoint.url,
        f"{endpoint.max_rate:g}/s" if endpoint.max_rate else "",
        enum_name(endpoint.status, "breaker").lower().replace("_", " "),
        endpoint.status.suspension.detail or endpoint.status.last_error,
        f"{endpoint.max_concurrency:,}",
        f"{endpoint.sent_today:,} of {endpoint.max_per_day:,}" if endpoint.max_per_day else "",
    )
