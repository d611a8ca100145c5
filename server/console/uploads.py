"""Files that somebody uploaded and has not imported yet: on disk, for their owner alone, for half an hour."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from time import monotonic
from typing import BinaryIO

KEPT = 1800.0
"""Seconds that a file is kept."""

MOST = 20
"""Files at once; one more drops the oldest."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file. `name` is what it was called where it comes from."""

    id: str
    name: str
    path: Path
    owner: str
    until: float


class Uploads:
    """The files that wait."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._folder = TemporaryDirectory(prefix="mailing-uploads-")
        self._known: dict[str, Upload] = {}

    def add(self, source: BinaryIO, name: str, owner: str) -> Upload:
        """Keep a file for `owner`, the digest of their credentials."""
        self._clean()
        key = token_urlsafe(18)
        path = Path(self._folder.name, key)
        with path.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        self._known[key] = Upload(key, name[:120], path, owner, self._clock() + KEPT)
        return self._known[key]

    def get(self, key: str, owner: str) -> Upload | None:
        """Return a file of this owner, None when there is none or its time is over."""
        self._clean()
        found = self._known.get(key)
        return found if found and found.owner == owner else None

    def drop(self, key: str) -> None:
        """Remove a file."""
        if found := self._known.pop(key, None):
            found.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all of them."""
        self._known.clear()
        self._folder.cleanup()

    def _clean(self) -> None:
        for key in [one.id for one in self._known.values() if one.until < self._clock()]:
            self.drop(key)
        while len(self._known) >= MOST:
            self.drop(next(iter(self._known)))
