"""`mailing webhooks`: who is notified of events, how far each is, and whether a request would arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import print_list, print_message
from mailing.cli.terminal.tables import facts_table, short_moment
from mailing.v1.admin_service_pb2 import ListWebhooksRequest, TestWebhookRequest, TestWebhookResponse
from mailing.v1.webhook_pb2 import Webhook


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "webhooks")(webhooks)


def webhooks(
    session: Session,
    test: Annotated[
        str | None, typer.Option("--test", metavar="NAME", help="Send one event webhook.test to this webhook.")
    ] = None,
) -> None:
    """List the webhooks with position, lag and last error, or try one.

    The exit status of a test is 0 when the webhook answered with a 2xx and 4 when it did not.
    """
    with session.connected() as client:
        if test is None:
            found = list(client.call(client.admin.ListWebhooks, ListWebhooksRequest()).webhooks)
            columns = ("~name", "~url", ">waiting", ">lag", ">last success", "~last error")
            print_list(session, "webhooks", found, 0, columns, _row)
            return
        answer = client.call(client.admin.TestWebhook, TestWebhookRequest(webhook=test))
    print_message(session, answer, lambda: facts_table(_facts(answer)))
    if not 200 <= answer.attempt.endpoint_status < 300:
        status = answer.attempt.endpoint_status
        how = f"answered HTTP {status}" if status else "did not answer"
        raise CommandError(f"webhook {test}: it {how}", ExitStatus.UNDELIVERED)


def _facts(answer: TestWebhookResponse) -> list[tuple[str, str]]:
    attempt = answer.attempt
    return [
        ("webhook", attempt.endpoint),
        ("webhook-id", answer.webhook_id),
        ("HTTP", str(attempt.endpoint_status or "")),
        ("took", f"{attempt.duration.ToMicroseconds() / 1000:,.1f} ms"),
        ("answer", attempt.response_excerpt),
    ]


def _row(webhook: Webhook) -> Sequence[str]:
    lag = f"{webhook.lag.ToMicroseconds() / 1e6:,.0f} s" if webhook.HasField("lag") else ""
    state = "disabled: " if webhook.disabled else ""
    return (
        webhook.name,
        webhook.url,
        f"{webhook.waiting:,}",
        lag,
        short_moment(webhook.last_success_time) if webhook.HasField("last_success_time") else "",
        f"{state}{webhook.last_error}",
    )
