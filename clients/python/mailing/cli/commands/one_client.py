"""What is done with one client, named by phone: get, update, opt-out, opt-in, delete, and their story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from mailing import MailingClient
from mailing.cli.commands.options import OfCountry, read, read_pairs, read_phone, read_window
from mailing.cli.session import Session, command
from mailing.cli.terminal.client_view import client_facts
from mailing.cli.terminal.output import document_of, print_cut, print_json, print_message
from mailing.cli.terminal.story_view import client_line, drawn, story_lines
from mailing.cli.terminal.words import counted
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import GetClientStoryResponse

STORY_PAGE = 1000

_FIELDS = {"timezone": "timezone", "tag": "tag", "operator_code": "operator_code", "window": "receive_window"}


@dataclass(slots=True)
class Who:
    """The options that name one client."""

    phone: Annotated[
        str | None, typer.Argument(metavar="PHONE", help="With the country code, as +7 (916) 123-45-67.")
    ] = None
    id: Annotated[int, typer.Option("--id", metavar="ID", help="The client's id, in place of the phone.")] = 0
    country: OfCountry = None

    def key(self) -> dict[str, Any]:
        """Return the client's name as arguments of the client library; raise a usage error for none or two."""
        if (self.phone is None) == (not self.id):
            raise typer.BadParameter("one of them names the client", param_hint=["PHONE", "--id"])
        if self.phone is None:
            return {"client_id": self.id}
        return {"phone": read_phone("PHONE", self.phone, self.country)}

    def client(self, **fields: Any) -> tuple[Client, str]:
        """Return a client with these fields to write, and the phone that names it, '' if none does."""
        key = self.key()
        return Client(id=key.get("client_id", 0), **fields), key.get("phone", "")


@dataclass(slots=True)
class Changes:
    """The options of what is changed."""

    new_phone: Annotated[str | None, typer.Option("--new-phone", metavar="PHONE", help="Another phone.")] = None
    timezone: Annotated[str | None, typer.Option("--timezone", metavar="ZONE", help="As Europe/Moscow.")] = None
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="A label to choose clients by.")] = None
    operator_code: Annotated[str | None, typer.Option("--operator-code", metavar="CODE", help="Three digits.")] = None
    window: Annotated[
        str | None, typer.Option("--window", metavar="HH:MM-HH:MM", help="When messages may be sent; '': always.")
    ] = None
    attribute: Annotated[
        list[str], typer.Option("--attribute", metavar="NAME=VALUE", help="The others stay; repeat for several.")
    ] = field(default_factory=list)

    def given(self, country: str | None) -> tuple[dict[str, Any], list[str]]:
        """Return the new values and the mask of what changes. Raise a usage error for nothing."""
        attributes = read_pairs("--attribute", self.attribute)
        values: dict[str, Any] = {"attributes": attributes} if attributes else {}
        mask = [f"attributes.{name}" for name in attributes]
        if self.new_phone is not None:
            values["phone"] = read_phone("--new-phone", self.new_phone, country)
            mask.append("phone")
        for option, name in _FIELDS.items():
            if (value := getattr(self, option)) is not None:
                values[name] = (
                    (read("--window", read_window, value) if value else None) if option == "window" else value
                )
                mask.append(name)
        if not mask:
            raise typer.BadParameter("nothing to change is given")
        return values, mask


def get(session: Session, who: Who) -> None:
    """Show one client."""
    key = who.key()
    with session.connected() as client:
        found = client.get_client(**key)
    print_message(session, found, lambda: client_facts(found))


def update(session: Session, who: Who, changes: Changes) -> None:
    """Change one client; only what is given changes."""
    values, mask = changes.given(who.country)
    wanted, phone = who.client(**values)
    with session.connected() as client:
        stored = client.update_client(wanted, mask, phone=phone)
    print_message(session, stored, lambda: client_facts(stored))


def opt_out(session: Session, who: Who) -> None:
    """Note that a client wants no messages: none is sent to them any more."""
    _consent(session, who, True, "has opted out: no message is sent to them any more")


def opt_in(session: Session, who: Who) -> None:
    """Take an opt-out back, when the client asked for it."""
    _consent(session, who, False, "has opted in again: mailings take them in")


def _consent(session: Session, who: Who, opted_out: bool, sentence: str) -> None:
    wanted, phone = who.client(opted_out=opted_out)
    with session.connected() as client:
        stored = client.update_client(wanted, ["opted_out"], phone=phone)
    if session.json:
        print_json(session, document_of(stored))
    else:
        session.out.print(f"Client {stored.id} ({stored.phone}) {sentence}.")


def delete(session: Session, who: Who) -> None:
    """Delete one client; messages not sent yet are cancelled, and the history stays."""
    key = who.key()
    with session.connected() as client:
        cancelled = client.delete_client(**key)
    if session.json:
        print_json(session, {"cancelled_messages": cancelled})
    else:
        session.out.print(f"The client is deleted, and {counted(cancelled, 'message')} to them cancelled.")


def story(session: Session, who: Who) -> None:
    """Tell everything about one client: mailings, messages, attempts, receipts and changes of consent."""
    key = who.key()
    with session.connected() as client:
        pages = list(_pages(client, key))
    if session.json:
        print_json(session, document_of(_joined(pages)))
        return
    first = pages[0]
    if first.HasField("client"):
        print_cut(session, client_line(first.client))
    else:
        session.out.print("The client is deleted; what is left is their history.")
    lines = list(story_lines(pages))
    for line in lines:
        print_cut(session, drawn(line))
    if not lines:
        session.out.print("Nothing was sent to them, and nothing about them is in the log.")


def _pages(client: MailingClient, key: dict[str, Any]) -> Iterator[GetClientStoryResponse]:
    token = ""
    while True:
        page = client.get_client_story(**key, page_size=STORY_PAGE, page_token=token)
        yield page
        if not (token := page.next_page_token):
            return


def _joined(pages: list[GetClientStoryResponse]) -> GetClientStoryResponse:
    whole = pages[0]
    for page in pages[1:]:
        whole.parts.extend(page.parts)
    whole.ClearField("next_page_token")
    return whole


def register(root: typer.Typer, clients: typer.Typer) -> None:
    """Add the commands to the group of clients, and `mailing story` to `root`."""
    named: dict[str, Callable[..., None]] = {
        "get": get,
        "update": update,
        "opt-out": opt_out,
        "opt-in": opt_in,
        "delete": delete,
    }
    for name, function in named.items():
        command(clients, name)(function)
    command(root, "story")(story)
