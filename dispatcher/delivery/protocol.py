"""The delivery protocol: what one message looks like on the wire.

`encode_body` and `parse_target` make the request for both senders. Nothing here does any I/O.
What the answer means is in `dispatcher.verdict`.

One request is `POST {url}{message id}` with a bearer token, the message id as its
Idempotency-Key and the body `{"id": int, "phone": int, "text": str}`.
"""

from __future__ import annotations

import errno
import re
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from dispatcher.model.endpoints import Endpoint

_NAME = re.compile(r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+")
_VISIBLE = re.compile(r"[\x21-\x7e]*")

_MOST_DIGITS = 32
"""No phone number is longer, in any form."""

OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors that speak of this machine and not of the endpoint: no file descriptor is free."""


class Target(NamedTuple):
    """An endpoint's URL and token, taken apart and proven harmless.

    `host` is a name or an address without brackets, `path` is what precedes the message id in
    the request line, `headers` are all headers that no message changes.
    """

    secure: bool
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]


def parse_target(endpoint: Endpoint) -> Target:
    """Check an endpoint's URL and token.

    Raise ValueError, naming the endpoint and the field but never the token, for anything
    that is not an absolute http(s) URL without userinfo and fragment, and for anything that
    could smuggle a second header or request.
    """

    def refuse(reason: str) -> ValueError:
        return ValueError(f"endpoint {endpoint.name!r}: {reason}")

    if not _VISIBLE.fullmatch(endpoint.url):
        raise refuse("url must be ASCII without spaces and control characters (percent-encode others)")
    if not _VISIBLE.fullmatch(endpoint.token):
        raise refuse("token must be ASCII without spaces and control characters")
    try:
        parts = urlsplit(endpoint.url)
        port = parts.port
    except ValueError as error:
        raise refuse(f"url: {error}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        raise refuse("url must begin with http:// or https://")
    if "@" in parts.netloc:
        raise refuse("url must not hold a user name or password")
    if "#" in endpoint.url:
        raise refuse("url must not hold a fragment: the message id is appended to it")
    if port == 0 or not (_is_ipv6(host) if "[" in parts.netloc else _is_name(host)):
        raise refuse("url must name a host, and a port from 1 to 65535 if any")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if "?" in endpoint.url else "")
    shown_host = f"[{host}]" if ":" in host else host
    headers = [("Host", shown_host if port is None else f"{shown_host}:{port}")]
    if endpoint.token:
        headers.append(("Authorization", f"Bearer {endpoint.token}"))
    headers += [
        ("User-Agent", "mailing"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("Content-Type", "application/json"),
    ]
    return Target(secure, host, port or (443 if secure else 80), path, tuple(headers))


def _is_name(host: str) -> bool:
    """Return whether a resolver can be asked for it; addresses of four numbers are names, too."""
    return len(host) <= 253 and _NAME.fullmatch(host.removesuffix(".") + ".") is not None


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def encode_body(message_id: int, phone: str, text: str) -> bytes:
    """Return the request body. `phone` holds digits only, or ValueError is raised."""
    if not (phone.isdigit() and phone.isascii() and len(phone) <= _MOST_DIGITS):
        raise ValueError("a phone holds digits only")
    number = phone if phone[0] != "0" else str(int(phone))
    return b'{"id":%d,"phone":%b,"text":%b}' % (message_id, number.encode(), _encode_text(text))


def _encode_text(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:  # half of a surrogate pair: no UTF-8 can hold it, the rest of the text still arrives
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
