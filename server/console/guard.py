"""Stands before every page: hosts, sizes, forgery, and the headers of each answer.

A request for another host is refused, which keeps a name that an attacker points here (DNS rebinding) from
reading a console without sign-in. A change comes from a form of ours: same origin, and with the token of the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from secrets import token_urlsafe
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1 << 20
"""Bytes of a form."""

MAX_UPLOAD = 64 << 20
"""Bytes of a form with a file."""

FORM_FIELD = "form_token"
_SAFE = ("GET", "HEAD")


class TooLarge(Exception):
    """The body of the request is over its limit, which is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class Forged(Exception):
    """A change did not come from a form of this console, or the form is older than the session."""


class Guard:
    """The outermost layer of the console. `hosts` are the names it goes by; empty: any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], secure: bool) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._headers = _headers(secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return
        static = scope["path"].startswith("/static/")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if self._hosts and not static and _host(Headers(scope=scope)) not in self._hosts:
            refusal = PlainTextResponse("This console does not go by that name.\n", 421)
            await refusal(scope, receive, answer)
            return
        await self._app(scope, _limited(scope, receive), answer)


def form_token(request: Request, cookie: str) -> str:
    """Return the token of the forms on a page; the page's answer sets the cookie if it is new."""
    token: str = getattr(request.state, "form_token", "") or request.cookies.get(cookie, "") or token_urlsafe(24)
    request.state.form_token = token
    return token


def check_origin(request: Request) -> None:
    """Raise Forged for a change that a page of another site sends."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    foreign = origin not in ("", "null") and urlsplit(origin).netloc != request.headers.get("host", "")
    if site not in ("same-origin", "none") or foreign or origin == "null":
        raise Forged


def check_token(given: object, request: Request, cookie: str) -> None:
    """Raise Forged for a form without the token of this browser."""
    known = request.cookies.get(cookie, "")
    if not known or not isinstance(given, str) or not compare_digest(given.encode(), known.encode()):
        raise Forged


def _headers(secure: bool) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }
    return headers | ({"strict-transport-security": "max-age=31536000"} if secure else {})


def _host(headers: Headers) -> str:
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return `receive` that raises TooLarge behind the limit."""
    headers = Headers(scope=scope)
    limit = MAX_UPLOAD if headers.get("content-type", "").startswith("multipart/") else MAX_BODY
    read = 0
    announced = headers.get("content-length", "")

    async def counted() -> Message:
        nonlocal read
        if announced.isdecimal() and int(announced) > limit:
            raise TooLarge(limit)
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLarge(limit)
        return message

    return counted if scope["method"] not in _SAFE else receive
