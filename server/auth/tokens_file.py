"""The tokens file: who may call by a static token or a client's certificate, and what they may do.

A line for each: `NAME sha256:HEX SCOPES` or `NAME certificate SCOPES`, the scopes joined by
commas, or `all`. It holds no secret, only the hashes of tokens that are random enough (256
bits) to need neither salt nor a slow hash. It is read again when it changes; a file that went
bad changes nothing, so that a slip of the editor locks nobody out, and is told in the log.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from time import monotonic

from server.auth.watched_file import BadFile, FileWatch, read_file
from server.domain.principals import ALL_SCOPES, Principal, Scope

PREFIX = "mlg_"
"""What every static token begins with, for those who search for leaked ones."""

LOOK_EVERY = 1.0
"""Seconds between two looks at whether the file has changed."""

ALL = "all"
_CERTIFICATE = "certificate"
_NAME = re.compile(r"[!-~]{1,255}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")

_log = logging.getLogger(__name__)


def new_token() -> str:
    """Return a new random token."""
    return PREFIX + secrets.token_urlsafe(32)


def token_line(name: str, token: str, scopes: Iterable[str]) -> str:
    """Return the line of the file for this token. Raise ValueError for a name or a scope that cannot be."""
    line = f"{name} sha256:{sha256(token.encode()).hexdigest()} {','.join(scopes)}"
    if not _NAME.fullmatch(name) or name.startswith("#"):
        raise ValueError(f"{name[:80]!r} is no name: 1 to 255 printable ASCII characters without spaces")
    _scopes_of(line.split(" ")[2])
    return line


@dataclass(frozen=True, slots=True)
class _Entries:
    tokens: dict[bytes, tuple[bytes, Principal]] = field(default_factory=dict)
    """By the first half of their hash; the rest is compared in constant time."""
    certificates: dict[str, Principal] = field(default_factory=dict)


class TokensFile:
    """The file at `path`. Raises BadFile when it cannot be used at first."""

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._clock = clock
        self._watch = FileWatch(path)
        self._entries = _read(path)
        self._next_look = clock() + LOOK_EVERY

    def by_digest(self, digest: bytes) -> Principal | None:
        """Return whose token has this SHA-256, None if it is nobody's."""
        self._look()
        found = self._entries.tokens.get(digest[:16])
        return found[1] if found and compare_digest(found[0], digest) else None

    def by_certificate(self, names: Sequence[str]) -> Principal | None:
        """Return who the first of a certificate's names is that the file has, None if it has none."""
        self._look()
        return next((self._entries.certificates[name] for name in names if name in self._entries.certificates), None)

    def _look(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if not self._watch.changed():
            return
        try:
            self._entries = _read(self._path)
            _log.info("read %s again: %d tokens", self._path, len(self._entries.tokens))
        except BadFile as error:
            _log.error("the tokens stay as they were: %s", error)


def _read(path: Path) -> _Entries:
    entries, problems = _Entries(), list[str]()
    text = read_file(path).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            _add(entries, line.split())
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}.")
    if problems:
        raise BadFile("\n".join(problems))
    return entries


def _add(entries: _Entries, words: Sequence[str]) -> None:
    if len(words) != 3:
        raise ValueError("it should have three words, NAME sha256:HEX SCOPES or NAME certificate SCOPES")
    name, credential, scopes = words
    if not _NAME.fullmatch(name):
        raise ValueError("the name should be 1 to 255 printable ASCII characters")
    if credential == _CERTIFICATE:
        if name in entries.certificates:
            raise ValueError(f"there is a line for the certificate of {name} already")
        entries.certificates[name] = Principal(name, _scopes_of(scopes), "certificate")
        return
    # What stands there instead is not told: it may be the token itself.
    hashed = _HASH.fullmatch(credential)
    if not hashed:
        raise ValueError("the second word should be certificate, or sha256: and 64 digits in lower-case hex")
    digest = bytes.fromhex(hashed[1])
    if digest[:16] in entries.tokens:
        raise ValueError("there is a line for this token already")
    entries.tokens[digest[:16]] = digest, Principal(name, _scopes_of(scopes), "token")


def _scopes_of(text: str) -> frozenset[Scope]:
    if text == ALL:
        return ALL_SCOPES
    unknown = [word for word in text.split(",") if word not in list(Scope)]
    if unknown:
        raise ValueError(f"{unknown[0][:80]!r} is no scope: there are {', '.join(Scope)}, and {ALL} for all of them")
    return frozenset(Scope(word) for word in text.split(","))
