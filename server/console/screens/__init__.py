"""The screens of the console, one module each: what it reads, what it changes, which template draws it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Route

from server.console.live import Drawings
from server.console.screens import (
    client_import,
    clients,
    compose,
    mailing,
    mailings,
    messages,
    operations,
    overview,
    reference,
    schedule_form,
    schedules,
    segments,
)
from server.console.visit import Console


def all_screens(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of all screens."""
    screens = (
        overview,
        compose,
        mailings,
        mailing,
        messages,
        client_import,
        clients,
        segments,
        schedule_form,
        schedules,
        operations,
        reference,
    )
    return [route for screen in screens for route in screen.routes(console, drawings)]
