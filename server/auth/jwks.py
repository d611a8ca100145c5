"""The public keys of an issuer (JWKS), fetched in the background.

No call ever waits for a fetch. One task fetches: at the start, every few minutes, and after a
cool-down when an unknown key was asked for, whatever callers send. The last good answer stays in
force while the issuer is unavailable, slow or broken, up to a maximum age; keys that a good
answer leaves out are dropped at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from dispatcher.tasks import happens

PublicKey = RSAPublicKey | EllipticCurvePublicKey

MIN_RSA_BITS = 2048
MAX_KEYS = 100
"""Maximum keys of a set."""

_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

_log = logging.getLogger(__name__)


class BadKeys(ValueError):
    """An answer that is not a key set. `str()` of it says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the algorithms that its signatures may use: never those of shared secrets."""

    public: PublicKey
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyTiming:
    """When keys are fetched, in seconds."""

    refresh: float = 300.0
    """Between two fetches, as long as they succeed."""
    retry_first: float = 1.0
    retry_longest: float = 60.0
    """Between two fetches while they fail: doubled each time, from the first to the longest."""
    cool_down: float = 30.0
    """After any fetch, before an unknown key may cause another one."""
    max_age: float = 86_400.0
    """How long keys are in force after the last successful fetch."""
    at_start: float = 5.0
    """How long the start of the service waits for the first fetch."""


def read_keys(document: bytes) -> dict[str, Key]:
    """Return the signature keys of a JSON Web Key Set by their ids. Raise BadKeys."""
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadKeys("the answer is no JSON Web Key Set") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise BadKeys("the answer is no JSON Web Key Set of a usual size")
    found = dict[str, Key]()
    for entry in entries:
        key = _key_of(entry) if isinstance(entry, dict) else None
        if key:
            found.setdefault(entry["kid"], key)
    if not found:
        raise BadKeys("the answer has no key that could be used")
    return found


def _key_of(entry: Mapping[str, Any]) -> Key | None:
    kid, named = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str) or not kid or entry.get("use", "sig") != "sig":
        return None
    try:
        made = (RSAAlgorithm if entry["kty"] == "RSA" else ECAlgorithm).from_jwk(dict(entry))
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if isinstance(made, RSAPublicKey) and made.key_size >= MIN_RSA_BITS:
        fitting = _RSA_ALGORITHMS
    elif isinstance(made, EllipticCurvePublicKey) and made.curve.name in _CURVE_ALGORITHMS:
        fitting = frozenset({_CURVE_ALGORITHMS[made.curve.name]})
    else:  # too short, another curve, or a private key, which is not secret any more
        return None
    allowed = fitting if named is None else fitting & {str(named)}
    return Key(made, allowed) if allowed else None


class KeySet:
    """The keys that `fetch` gets, which returns a JSON Web Key Set or raises."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        timing: KeyTiming | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._fetch = fetch
        self._timing = timing or KeyTiming()
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._document = b""
        self._good_until = float("-inf")
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        self.generation = 0
        """Grows whenever the keys change."""

    @property
    def in_force(self) -> bool:
        """Whether the keys are not too old."""
        return self._clock() < self._good_until

    def get(self, kid: str) -> Key | None:
        """Return the key at once; None for an unknown one, which makes the background task fetch."""
        key = self._keys.get(kid) if self.in_force else None
        if key is None:
            self._wanted.set()
        return key

    async def first(self) -> None:
        """Wait for the first fetch, successful or not, for a bounded time."""
        if not await happens(self._tried, self._timing.at_start):
            _log.warning("the issuer's keys are not loaded yet: tokens are rejected until they are")

    async def run(self) -> None:
        """Fetch the keys again and again, until cancelled."""
        retry = self._timing.retry_first
        while True:
            self._wanted.clear()
            if await self._refresh():
                wait, retry = self._timing.refresh, self._timing.retry_first
            else:
                wait, retry = retry, min(2 * retry, self._timing.retry_longest)
            self._tried.set()
            await self._pause(wait)

    async def _pause(self, wait: float) -> None:
        """Wait `wait` seconds, or the cool-down only if an unknown key is asked for."""
        cool_down = min(self._timing.cool_down, wait)
        await asyncio.sleep(cool_down)
        await happens(self._wanted, wait - cool_down)

    async def _refresh(self) -> bool:
        try:
            document = await self._fetch()
            if document != self._document:
                self._keys = read_keys(document)
                self._document = document
                self.generation += 1
                _log.info("the issuer has %d keys: %s", len(self._keys), ", ".join(sorted(self._keys)))
        except Exception as error:
            known = f"the {len(self._keys)} known keys stay in force" if self.in_force else "no key is known"
            _log.error("the issuer's keys cannot be fetched, %s: %s", known, error or type(error).__name__)
            return False
        self._good_until = self._clock() + self._timing.max_age
        return True
