"""When a mailing may send, as `mailings get`, `create` and `list` show it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mailing import new_duration, new_filter, new_local_time
from mailing.cli.terminal.plan import plan_words, short_start
from mailing.sending_hours import parse_hours
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse as Preview
from tests.support.terminal import terminal
from tests.unit.cli.conftest import Run, Service

posix = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


def planned(**fields: Any) -> Mailing:
    """Return a mailing with everything that bounds its sending."""
    bounds: dict[str, Any] = {
        "filter": ClientFilter(tags=["vip"], segment="gold"),
        "sending_hours": [parse_hours("mon-fri 09:00-18:00"), parse_hours("sat 10:00-14:00 Europe/Riga")],
        "holidays": "russia",
        "local_start": new_local_time("2030-01-31 10:00"),
        "skip_after": new_duration("2h30m"),
        "max_per_day": 12_000,
        "max_per_day_timezone": "Europe/Moscow",
    }
    return Mailing(id=7, **bounds | fields)


def test_a_mailing_shows_all_that_bounds_its_sending(run: Run, service: Service) -> None:
    service.mailings.script = [planned()]
    words = " ".join(run("mailings", "get", "7").out.split())
    for fact in (
        "audience segment: gold; tags: vip, also",
        "local start 2030-01-31 10:00 by each client's clock",
        "sending hours mon-fri 09:00-18:00 by each client's clock; sat 10:00-14:00 Europe/Riga",
        "holidays russia",
        "skip after 2 h 30 min",
        "max per day 12,000 on each day of Europe/Moscow",
    ):
        assert fact in words, words


def test_a_mailing_without_bounds_shows_none(run: Run, service: Service) -> None:
    service.mailings.script = [Mailing(id=7, filter=new_filter(tags=["vip"]))]
    out = run("mailings", "get", "7").out
    for name in ("segment", "local start", "begins", "sending hours", "holidays", "skip after", "max per day"):
        assert name not in out


def test_a_list_has_the_local_start_and_on_demand_the_rest() -> None:
    assert short_start(planned()) == "01-31 10:00 local"
    assert plan_words(planned(sending_hours=[])) == (
        "segment: gold; holidays: russia; skip after: 2 h 30 min; max per day: 12,000 on each day of Europe/Moscow"
    )
    assert plan_words(Mailing(id=7)) == ""


def test_a_wide_list_has_a_column_for_the_plan(run: Run, service: Service) -> None:
    service.mailings.listed = [planned()]
    out = run("mailings", "list", "--wide").out
    assert "segment: gold; sending hours: mon-fri 09:00-18:00 by each client's clock;" in out
    assert "segment" not in run("mailings", "list").out


@posix
def test_a_new_mailing_shows_its_plan_before_it_is_agreed_to(service: Service) -> None:
    service.mailings.preview = Preview(audience_size=2)
    options = ["--filter", 'segment("gold")', "--hours", "mon-fri 09:00-18:00", "--local-start", "2030-01-31 10:00"]
    command = ["mailings", "create", "--text", "Hi", "--snapshot", *options, "--max-per-day", "500"]
    with terminal(*command, address=service.address) as screen:
        screen.shows('segment("gold")')
        screen.shows("2030-01-31 10:00 by each client's clock")
        screen.shows("mon-fri 09:00-18:00")
        screen.shows("500 on each day of UTC")
        screen.type("n\n")
        assert screen.ended() == 130
