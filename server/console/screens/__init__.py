"""The screens of the console, one module each: what it reads, what it changes, which template draws it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Route

from server.console.live import Drawings
from server.console.screens import (
    client_import,
    clients,
    mailing,
    mailings,
    messages,
    new_mailing,
    operations,
    overview,
    reference,
    schedules,
)
from server.console.visit import Console


def all_screens(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of all screens."""
    screens = (
        overview,
        new_mailing,
        mailings,
        mailing,
        messages,
        client_import,
        clients,
        schedules,
        operations,
        reference,
    )
    return [route for screen in screens for route in screen.routes(console, drawings)]
