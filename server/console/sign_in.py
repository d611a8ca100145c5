"""Signing in and out, and what a person sets for themselves.

A token is tried on the API before a session begins. A session ends with its token, at the latest after the
configured hours. After several failures a host has to wait.
"""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mailing.errors import MailingError
from server.console.forms import checked_form
from server.console.oidc import FLOW_SECONDS, Oidc, OidcError, flow_of, text_of
from server.console.permissions import May
from server.console.service import Credentials
from server.console.viewer import LANGUAGES, THEMES, viewer_of
from server.console.visit import Console, Visit, redirect

MOST_FAILURES, PERIOD = 10, 60.0
"""Failed attempts of one host, and of all together times ten, within so many seconds."""

_YEAR = 365 * 86400
log = logging.getLogger(__name__)


def sign_in_routes(console: Console) -> Sequence[Route]:
    """Return the routes of the sign-in."""
    door = _Door(console)
    return [
        Route("/sign-in", door.show),
        Route("/sign-in", door.by_token, methods=["POST"]),
        Route("/sign-in/oidc", door.to_issuer),
        Route("/sign-in/oidc/callback", door.from_issuer),
        Route("/sign-out", door.leave, methods=["POST"]),
        Route("/preferences", door.prefer, methods=["POST"]),
    ]


class Attempts:
    """Counts failed attempts."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failed: deque[tuple[float, str]] = deque(maxlen=10 * MOST_FAILURES)

    def failed(self, host: str) -> None:
        """Note a failure."""
        self._failed.append((self._clock(), host))

    def too_many(self, host: str) -> bool:
        """Return whether this host has to wait."""
        recent = [one for at, one in self._failed if at > self._clock() - PERIOD]
        return recent.count(host) >= MOST_FAILURES or len(recent) >= 10 * MOST_FAILURES


def local_path(text: str) -> str:
    """Return a path of this console to go on with; `/` for anything else, which might lead away."""
    fine = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if fine else "/"


def claims_of(token: str) -> dict[str, Any]:
    """Return what a JWT says about itself, unverified: for names and ends only. Other tokens say nothing."""
    try:
        payload = token.split(".")[1]
        found = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Door:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._attempts = Attempts()
        self._oidc = Oidc(console.options.oidc) if console.options.oidc else None
        self._flow_cookie = "__Host-mailing-flow" if console.options.secure else "mailing-flow"

    async def show(self, request: Request) -> Response:
        """Show the sign-in."""
        return self._page(request, local_path(request.query_params.get("next", "/")), "", 200)

    async def by_token(self, request: Request) -> Response:
        """Begin a session with a token that the API takes."""
        form = await checked_form(self._console, request)
        token, after = form.get("token"), local_path(form.get("next"))
        host = request.client.host if request.client else ""
        if self._attempts.too_many(host):
            return self._page(request, after, "wait", 429)
        problem = await self._refused(token)
        if problem:
            self._attempts.failed(host)
            return self._page(request, after, problem, 503 if problem == "away" else 401)
        response = redirect(after)
        self.begin(response, token)
        return response

    def begin(self, response: Response, token: str, id_token: str = "") -> None:
        """Begin a session with a token that was tried."""
        claims = claims_of(token)
        ends, until = claims.get("exp"), time() + 3600 * self._console.options.session_hours
        until = min(until, float(ends)) if isinstance(ends, int | float) else until
        person = claims_of(id_token) or claims
        name = next((person[key] for key in ("name", "preferred_username", "email", "sub") if person.get(key)), "")
        self._console.sessions.begin(response, str(name)[:80], token, until, id_token)
        _clean_forms(response, self._console)

    async def to_issuer(self, request: Request) -> Response:
        """Send somebody to the issuer, with what is needed to recognise them when they come back."""
        after = local_path(request.query_params.get("next", "/"))
        if self._oidc is None:
            return self._page(request, after, "", 404)
        try:
            callback = f"{self._base(request)}/sign-in/oidc/callback"
            address, flow = await self._oidc.begin(callback, after, time() + FLOW_SECONDS)
        except OidcError as error:
            return self._failed(request, after, error)
        response = RedirectResponse(address, 303)
        sealed = self._console.sessions.seal(text_of(flow))
        self._console.sessions.set_cookie(response, self._flow_cookie, sealed, FLOW_SECONDS)
        return response

    async def from_issuer(self, request: Request) -> Response:
        """Begin a session for somebody whom the issuer sends back."""
        flow = flow_of(self._console.sessions.unseal(request.cookies.get(self._flow_cookie, "")))
        if self._oidc is None or flow is None or flow.until < time():
            return self._failed(request, "/", OidcError("no sign-in was begun in this browser, or it took too long"))
        try:
            tokens = await self._oidc.finish(flow, request.query_params)
        except OidcError as error:
            return self._failed(request, flow.after, error)
        if problem := await self._refused(tokens.access):
            return self._page(request, flow.after, problem, 503 if problem == "away" else 401)
        response = redirect(flow.after)
        self.begin(response, tokens.access, tokens.identity)
        self._forget_flow(response)
        return response

    async def leave(self, request: Request) -> Response:
        """End the session, here and at the issuer."""
        await checked_form(self._console, request)
        session, address = self._console.sessions.read(request.cookies), ""
        if session and session.id_token and self._oidc:
            address = await self._oidc.end_session(session.id_token, f"{self._base(request)}/sign-in")
        # A page, not a redirect: the policy lets forms go nowhere else.
        response = self._page(request, "/", "", 200, away=address) if address else redirect("/sign-in")
        self._console.sessions.end(response, session)
        _clean_forms(response, self._console)
        return response

    async def prefer(self, request: Request) -> Response:
        """Keep a language or a theme in a cookie."""
        form = await checked_form(self._console, request)
        response = redirect(local_path(form.get("next")))
        for name, known in (("language", tuple(LANGUAGES)), ("theme", THEMES)):
            if form.get(name) in known:
                self._console.sessions.set_cookie(response, name, form.get(name), _YEAR)
        return response

    async def _refused(self, token: str) -> str:
        """Return why a token is no good, '' if it is."""
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            return "refused"
        try:
            await self._console.permissions.of(Credentials(token))
            # A service that asks nobody for credentials takes any token: that is no sign-in.
            if not self._console.options.everybody and await self._lets_everybody_in():
                return "open"
        except MailingError as error:
            return "refused" if error.code is grpc.StatusCode.UNAUTHENTICATED else "away"
        return ""

    async def _lets_everybody_in(self) -> bool:
        try:
            await self._console.permissions.of(Credentials())
        except MailingError as error:
            if error.code is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
        return True

    def _failed(self, request: Request, after: str, error: OidcError) -> Response:
        log.warning("a sign-in at the issuer failed: %s", error)
        response = self._page(request, after, "issuer", 401)
        self._forget_flow(response)
        return response

    def _forget_flow(self, response: Response) -> None:
        secure = self._console.options.secure
        response.delete_cookie(self._flow_cookie, secure=secure, httponly=True, samesite="lax")

    def _base(self, request: Request) -> str:
        """Return how the browser reaches the console."""
        return self._console.options.public_url.rstrip("/") or str(request.base_url).rstrip("/")

    def _page(self, request: Request, after: str, problem: str, status: int, away: str = "") -> Response:
        viewer = viewer_of(request.cookies, request.headers.get("accept-language", ""))
        visit = Visit(self._console, request, viewer, None, May())
        oidc = self._oidc is not None
        return visit.page(
            "sign_in.html", status, after=after, problem=problem, oidc=oidc, away_to=away, live="", part={}
        )


def _clean_forms(response: Response, console: Console) -> None:
    """Let forms of another person's session be worth nothing."""
    response.delete_cookie(console.form_cookie, secure=console.options.secure, httponly=True, samesite="lax")
