"""Who is signed in: an encrypted cookie that holds the person's token and ends before it does.

Nothing is stored on the server but the sessions that were ended before their time. A cookie that is
forged, too old, ended, or of another secret is no session. Long tokens are spread over several cookies.
"""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from secrets import token_bytes, token_urlsafe
from time import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.responses import Response

from server.console.service import Credentials

PIECE = 3800
"""Bytes of one cookie: browsers drop those beyond 4,096."""

MOST_PIECES = 5
_PURPOSE = b"mailing console session 1"
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person. `until` is in seconds since 1970; `id_token` is for signing out at the issuer."""

    id: str
    name: str
    token: str
    until: float
    id_token: str = ""

    @property
    def credentials(self) -> Credentials:
        """What calls of the API carry."""
        return Credentials(self.token)


class Sessions:
    """Makes, reads and ends sessions."""

    def __init__(self, secret: str, secure: bool, clock: Callable[[], float] = time) -> None:
        self._key = AESGCM(sha256(secret.encode()).digest() if secret else token_bytes(32))
        self._secure = secure
        self._clock = clock
        self._ended: dict[str, float] = {}
        self.cookie = "__Host-mailing-session" if secure else "mailing-session"

    def begin(self, response: Response, name: str, token: str, until: float, id_token: str = "") -> None:
        """Sign a person in until then."""
        value = self.seal(json.dumps(asdict(Session(token_urlsafe(16), name, token, until, id_token))))
        pieces = [value[start : start + PIECE] for start in range(0, len(value), PIECE)]
        if len(pieces) > MOST_PIECES:
            raise ValueError("the token is too long for a session")
        for number, piece in enumerate(pieces):
            self.set_cookie(response, f"{self.cookie}-{number}", piece, int(until - self._clock()))
        response.delete_cookie(f"{self.cookie}-{len(pieces)}", secure=self._secure, httponly=True, samesite="lax")

    def read(self, cookies: Mapping[str, str]) -> Session | None:
        """Return the session of these cookies, None if there is none."""
        value = ""
        for number in range(MOST_PIECES):
            piece = cookies.get(f"{self.cookie}-{number}", "")
            value += piece
            if len(piece) < PIECE:
                break
        session = self._opened(value) if value else None
        return session if session and session.until > self._clock() and session.id not in self._ended else None

    def end(self, response: Response, session: Session | None) -> None:
        """Sign out: the cookie goes, and a copy of it is worth nothing here."""
        now = self._clock()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        if session:
            self._ended[session.id] = session.until
        for number in range(MOST_PIECES):
            name = f"{self.cookie}-{number}"
            response.delete_cookie(name, secure=self._secure, httponly=True, samesite="lax")

    def set_cookie(self, response: Response, name: str, value: str, seconds: int) -> None:
        """Set a cookie that scripts and other sites do not see."""
        response.set_cookie(name, value, max_age=seconds, secure=self._secure, httponly=True, samesite="lax")

    def seal(self, text: str) -> str:
        """Return a text that nobody else can read or make."""
        nonce = token_bytes(_NONCE)
        sealed = nonce + self._key.encrypt(nonce, zlib.compress(text.encode(), 9), _PURPOSE)
        return urlsafe_b64encode(sealed).decode()

    def unseal(self, value: str) -> str:
        """Return the text, '' for what was not sealed here."""
        try:
            sealed = urlsafe_b64decode(value)
            return zlib.decompress(self._key.decrypt(sealed[:_NONCE], sealed[_NONCE:], _PURPOSE)).decode()
        except (ValueError, InvalidTag, zlib.error):
            return ""

    def _opened(self, value: str) -> Session | None:
        try:
            return Session(**json.loads(self.unseal(value)))
        except (ValueError, TypeError):
            return None
