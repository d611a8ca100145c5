"""The options that several commands share, and how their values are read.

A value that cannot be read ends as a usage error that names the option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

import typer

from mailing.builders import new_filter, new_window
from mailing.client import PAGE_SIZE
from mailing.phones import Country, phone_digits
from mailing.v1.client_pb2 import ClientFilter, ReceiveWindow

_T = TypeVar("_T")
_N = TypeVar("_N", bound=int)
_CHOICE = "Which clients (repeat for alternatives)"

Tags = Annotated[list[str], typer.Option("--tag", metavar="TAG", help="With this tag.", rich_help_panel=_CHOICE)]
OperatorCodes = Annotated[
    list[str],
    typer.Option("--operator-code", metavar="CODE", help="With this operator code.", rich_help_panel=_CHOICE),
]
Timezones = Annotated[
    list[str], typer.Option("--timezone", metavar="ZONE", help="In this time zone.", rich_help_panel=_CHOICE)
]
Attributes = Annotated[
    list[str],
    typer.Option(
        "--attribute",
        metavar="NAME=VALUE",
        help="With this attribute; several must all match.",
        rich_help_panel=_CHOICE,
    ),
]
ClientIds = Annotated[
    list[int], typer.Option("--client-id", metavar="ID", help="With this id.", rich_help_panel=_CHOICE)
]
FilterText = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="TEXT",
        help="Who match this instead, such as 'tag = \"vip\" AND attributes.age >= 30 AND NOT got(17)'.",
        rich_help_panel=_CHOICE,
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Maximum number of rows; 0: all.")]
OfCountry = Annotated[
    str | None, typer.Option("--country", metavar="COUNTRY", help="Of a national number: RU for 8 916 123-45-67.")
]


def page_size(limit: int) -> int:
    """Return the page size with which a short list, and whether there are more, costs one call."""
    return min(limit + 1, PAGE_SIZE) if limit else PAGE_SIZE


def read(option: str, reader: Callable[[str], _T], text: str) -> _T:
    """Return what `reader` makes of the text; its ValueError becomes a usage error of the option."""
    try:
        return reader(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def read_optional(option: str, reader: Callable[[str], _T], text: str | None) -> _T | None:
    """Do the same as `read`, for an option that may be missing."""
    return None if text is None else read(option, reader, text)


def read_phone(option: str, text: str, country: str | None) -> str:
    """Return the digits of a phone as people write it; a national number is one of the country."""
    known = read_optional("--country", Country, country)
    return read(option, lambda phone: phone_digits(phone, known), text)


def read_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Return repeated NAME=VALUE options as a map; a name given twice is a usage error."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint=option)
        found[name] = value
    return found


def read_filter(
    tags: list[str], operator_codes: list[str], timezones: list[str], attributes: list[str], client_ids: list[int]
) -> ClientFilter | None:
    """Return the filter of these options; None when none of them was given."""
    chosen = new_filter(
        tags=tags,
        operator_codes=operator_codes,
        timezones=timezones,
        attributes=read_pairs("--attribute", attributes),
        client_ids=client_ids,
    )
    return chosen if chosen.ByteSize() else None


def only_one(filter_text: str, chosen: ClientFilter | None) -> None:
    """Raise a usage error for a filter as text together with options that choose clients."""
    if filter_text and chosen is not None:
        raise typer.BadParameter("say it all in the text, or leave it out", param_hint="--filter")


def read_window(text: str) -> ReceiveWindow:
    """Read "09:00-21:00"; raise ValueError."""
    start, sign, end = text.partition("-")
    if not sign:
        raise ValueError(f"{text!r} is not a window such as 09:00-21:00")
    return new_window(start, end)


def read_values(option: str, texts: Iterable[str], values: Iterable[tuple[str, _N]], prefix: str) -> list[_N]:
    """Return the enum values of these names, written without their prefix and in any case: "running".

    `values` are all names and numbers of the enum; the unspecified 0 cannot be chosen.
    """
    known = {name.removeprefix(prefix).lower(): number for name, number in values if number}
    for text in texts:
        if text.lower() not in known:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(known)}", param_hint=option)
    return [known[text.lower()] for text in texts]
