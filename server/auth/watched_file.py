"""Files that may change while the service runs: whether they did is asked, not told."""

from __future__ import annotations

from pathlib import Path


class BadFile(ValueError):
    """A file that cannot be used. `str()` of it is a sentence for people, without a secret."""


class FileWatch:
    """Some files as they were when they were last looked at."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._look()

    def changed(self) -> bool:
        """Return whether any of them changed since the last time, be it that it went away."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_file(path: Path, limit: int = 1 << 20) -> bytes:
    """Return what a file of at most `limit` bytes holds. Raise BadFile."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    if len(data) > limit:
        raise BadFile(f"{path} is larger than {limit:,} bytes.")
    return data
