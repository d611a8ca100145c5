"""How one client is shown: a row of a list, or a table of facts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mailing.builders import window_times
from mailing.cli.terminal.tables import facts_table, pairs
from mailing.v1.client_pb2 import Client

CLIENT_COLUMNS = (">id", "phone", "operator", "~tag", "~timezone", "window", "~attributes")


def client_row(client: Client) -> Sequence[str]:
    """Return the cells of a client, in the order of `CLIENT_COLUMNS`."""
    return (
        str(client.id),
        client.phone,
        client.operator_code,
        client.tag,
        client.timezone,
        "-".join(window_times(client.receive_window)) if client.HasField("receive_window") else "",
        pairs(client.attributes),
    )


def client_facts(client: Client) -> Table:
    """Return what is stored of a client."""
    names = ("id", "phone", "operator code", "tag", "time zone", "window", "attributes")
    out = "yes" if client.opted_out else ""
    return facts_table([*zip(names, client_row(client), strict=True), ("opted out", out), ("etag", client.etag)])
