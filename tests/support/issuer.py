"""An OIDC issuer for tests: keys, tokens, and a real HTTP server for both, in a thread of its own."""

from __future__ import annotations

import base64
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://mailing.example"
NAME = "https://issuer.example/"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(which: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of this name; making one takes a while."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(which: str = "first") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def jwk(kid: str, key: Private, **more: Any) -> dict[str, Any]:
    """Return the public half as an entry of a key set."""
    if isinstance(key, rsa.RSAPrivateKey):
        entry = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**entry, "kid": kid, "use": "sig", **more}


def key_set(*entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def claims(**other: Any) -> dict[str, Any]:
    """Return good claims with some of them changed; None takes one away, `exp_in` counts from now."""
    now = int(time.time())
    other |= {name[:-3]: now + other.pop(name) for name in ("exp_in", "nbf_in") if name in other}
    usual = {"iss": NAME, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 600, "scope": "mailings.read"}
    return {name: value for name, value in {**usual, **other}.items() if value is not None}


def token(
    key: Private | None = None, kid: str | None = "rsa", header: Mapping[str, Any] | None = None, **other: Any
) -> str:
    """Return a token signed by the key, the first RSA key without one; `other` changes its claims."""
    private = key or rsa_key()
    algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
    head = {**({"kid": kid} if kid is not None else {}), **(header or {})}
    with warnings.catch_warnings(category=jwt.warnings.InsecureKeyLengthWarning, action="ignore"):
        return jwt.encode(claims(**other), private, algorithm, head)


def segment(value: Any) -> str:
    """Return bytes, or the JSON of anything else, as a segment of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Reply = Callable[[BaseHTTPRequestHandler], None]


def answer(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Return a reply of this body."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return reply


class IssuerServer:
    """Answers by path, as `replies` say at that moment; any other path gets 404."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []
        self.posted: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    issuer.asked.append(self.path)
                    issuer.at_once += 1
                    issuer.most_at_once = max(issuer.most_at_once, issuer.at_once)
                try:
                    issuer.replies.get(self.path, answer(b"", 404))(self)
                except OSError:
                    pass  # whoever asked has gone
                finally:
                    with lock:
                        issuer.at_once -= 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                issuer.posted.append(dict(parse_qsl(body)))
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def publish(self, *entries: Mapping[str, Any]) -> None:
        """Have these keys from now on."""
        self.replies["/keys"] = answer(key_set(*entries))

    @property
    def keys_url(self) -> str:
        return f"{self.url}keys"

    def go_down(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_down()
