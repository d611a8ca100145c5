"""The console as an ASGI application: its pages, and what a person sees when something goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from mailing.errors import MailingError
from server.console import render
from server.console.guard import Forged, Guard, TooLarge
from server.console.http_api import PREFIX, HttpApi
from server.console.live import Drawings
from server.console.permissions import May
from server.console.screens import all_screens
from server.console.sign_in import sign_in_routes
from server.console.viewer import viewer_of
from server.console.visit import Console, SignInNeeded, Visit, redirect, sign_in_path

log = logging.getLogger(__name__)

_HTTP = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 502,
    grpc.StatusCode.UNKNOWN: 502,
}


def build_app(console: Console, api: HttpApi, hosts: Sequence[str]) -> ASGIApp:
    """Return the application: the pages, and the API over HTTP. `hosts` are the names that it goes by; empty: any."""
    drawings = Drawings()
    routes: list[BaseRoute] = [
        *all_screens(console, drawings),
        *sign_in_routes(console),
        Route("/static/{name:path}", _static),
        Route("/healthz", _healthz),
        Route(PREFIX + "{rest:path}", api),
    ]
    problems = _Problems(console)
    app = Starlette(
        routes=routes,
        exception_handlers={
            MailingError: problems.refused,
            SignInNeeded: problems.sign_in,
            Forged: problems.forged,
            TooLarge: problems.too_large,
            HTTPException: problems.http,
            Exception: problems.failed,
        },
    )
    return Guard(app, hosts, console.options.secure)


class _Problems:
    """The pages of what went wrong."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def refused(self, request: Request, error: Exception) -> Response:
        """Tell what the API said, in its words."""
        assert isinstance(error, MailingError)
        sentences = [f"{one.field}: {one.description}" for one in error.fields] or [error.message]
        return self._page(request, _HTTP.get(error.code, 400), error.code.name, sentences)

    async def sign_in(self, request: Request, error: Exception) -> Response:
        """Lead to the sign-in and back."""
        return redirect(sign_in_path(request))

    async def forged(self, request: Request, error: Exception) -> Response:
        """Refuse a change of which it is not sure who wants it."""
        return self._page(request, 403, "FORGED", [])

    async def too_large(self, request: Request, error: Exception) -> Response:
        """Refuse a form before it is read to its end."""
        assert isinstance(error, TooLarge)
        return self._page(request, 413, "TOO_LARGE", [f"{error.limit >> 20} MiB"])

    async def http(self, request: Request, error: Exception) -> Response:
        """Tell that there is no such page."""
        assert isinstance(error, HTTPException)
        return self._page(request, error.status_code, "NO_PAGE" if error.status_code == 404 else "HTTP", [error.detail])

    async def failed(self, request: Request, error: Exception) -> Response:
        """Tell that the console itself failed; its log says why."""
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return self._page(request, 500, "INTERNAL", [])

    def _page(self, request: Request, status: int, kind: str, sentences: Sequence[str]) -> Response:
        viewer = viewer_of(request.cookies, request.headers.get("accept-language", ""))
        session = self._console.sessions.read(request.cookies)
        visit = Visit(self._console, request, viewer, session, May())
        return visit.page("problem.html", status, kind=kind, sentences=sentences, live="", part={})


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in render.FILES:
        return PlainTextResponse("no such file\n", 404)
    # The address changes with the file. Private: no proxy keeps anything of the console.
    return FileResponse(render.STATIC / name, headers={"cache-control": "private, max-age=31536000, immutable"})


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")
