"""One request of one person: who they are, what they may do, and how answers are made for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import grpc
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mailing.errors import MailingError
from server.console import render
from server.console.catalogues import translations_of
from server.console.guard import form_token
from server.console.options import ConsoleOptions
from server.console.permissions import May, Permissions
from server.console.reads import Reads
from server.console.service import PATIENCE, Credentials, Service
from server.console.sessions import Session, Sessions
from server.console.topics import Topics
from server.console.uploads import Uploads
from server.console.viewer import Viewer, viewer_of

A = TypeVar("A")
B = TypeVar("B")

NAVIGATION = (
    ("/", "overview"),
    ("/mailings", "mailings"),
    ("/schedules", "schedules"),
    ("/messages", "messages"),
    ("/clients", "clients"),
    ("/segments", "segments"),
    ("/endpoints", "endpoints"),
    ("/dispatchers", "dispatchers"),
    ("/log", "log"),
    ("/settings", "settings"),
)


class SignInNeeded(Exception):
    """The person has to sign in first."""


@dataclass(frozen=True, slots=True)
class Console:
    """What all requests share."""

    options: ConsoleOptions
    service: Service
    topics: Topics
    sessions: Sessions
    permissions: Permissions
    uploads: Uploads
    form_cookie: str = field(default="mailing-form")


@dataclass(frozen=True, slots=True)
class Visit:
    """A request, with what follows from it."""

    console: Console
    request: Request
    viewer: Viewer
    session: Session | None
    may: May

    @property
    def who(self) -> Credentials:
        """What calls in this person's name carry."""
        return self.session.credentials if self.session else Credentials()

    @property
    def service(self) -> Service:
        """The service that the console shows."""
        return self.console.service

    @property
    def reads(self) -> Reads:
        """The reads in this person's name."""
        return Reads(self.service, self.who)

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[A, B], request: A, patience: float = PATIENCE) -> B:
        """Call the API in this person's name. Raise MailingError."""
        return await self.service.call(method, request, self.who, patience)

    def page(self, name: str, status: int = 200, **context: Any) -> Response:
        """Return a page, with what the frame around it needs."""
        request, cookie = self.request, self.console.form_cookie
        token = form_token(request, cookie)
        frame = {
            "may": self.may,
            "me": (self.session.name or self.text("With a token")) if self.session else "",
            "form_token": token,
            "navigation": NAVIGATION,
            "new_id": uuid4,
            "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        }
        response = render.page(request, self.viewer, name, frame | context, status)
        if request.cookies.get(cookie) != token:
            self.console.sessions.set_cookie(response, cookie, token, 30 * 86400)
        return response

    def text(self, message: str) -> str:
        """Return a text in the person's language."""
        return translations_of(self.viewer.language).gettext(message)


def redirect(path: str) -> Response:
    """Send the browser to a page, which it loads anew."""
    return RedirectResponse(path, 303)


def sign_in_path(request: Request) -> str:
    """Return the address of the sign-in, which leads back to this page."""
    back = request.url.path.removesuffix("/live") if request.method == "GET" else "/"
    query = f"?{request.url.query}" if request.url.query and request.method == "GET" else ""
    return f"/sign-in?next={quote(back + query, safe='/')}"


async def begin_visit(console: Console, request: Request) -> Visit:
    """Return the visit of a request. Raise SignInNeeded, MailingError where the service is away."""
    session = console.sessions.read(request.cookies)
    if session is None and not console.options.everybody:
        raise SignInNeeded
    try:
        may = await console.permissions.of(session.credentials if session else Credentials())
    except MailingError as error:
        if error.code is grpc.StatusCode.UNAUTHENTICATED:
            raise SignInNeeded from error
        raise
    return Visit(console, request, viewer_of(request.cookies, request.headers.get("accept-language", "")), session, may)


def page_route(console: Console, path: str, handler: Callable[[Visit], Awaitable[Response]]) -> Route:
    """Return the route of a page that is drawn once, for the person who asks for it."""

    async def answer(request: Request) -> Response:
        return await handler(await begin_visit(console, request))

    return Route(path, answer, methods=["GET"])


def values(request: Request, name: str) -> Sequence[str]:
    """Return the values of a parameter of the address that are not empty."""
    return [one for one in request.query_params.getlist(name) if one]


def number_in(request: Request, name: str) -> int:
    """Return an id of the address; 0 for one that is none. Ids stay text in pages: they exceed 2^53."""
    text = request.query_params.get(name) or request.path_params.get(name) or ""
    return int(text) if str(text).isascii() and str(text).isdecimal() and len(str(text)) < 20 else 0
