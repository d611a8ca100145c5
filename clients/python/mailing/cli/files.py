"""Files that commands write: standard output for `-`, devices and pipes as they are, files whole or not at all."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mailing.cli.failures import CommandError, ExitStatus

STANDARD_STREAM = "-"


@contextmanager
def output_file(name: str) -> Iterator[TextIO]:
    """Lend the output of this name; raise CommandError where it cannot be written.

    A file is written beside its place and renamed at the end, so that a failure leaves what was there.
    """
    if name == STANDARD_STREAM:
        yield sys.stdout
        return
    path = Path(name)
    try:
        mode = path.stat().st_mode if path.exists() else None
        if mode is not None and (not stat.S_ISREG(mode) or _is_standard_stream(path)):
            with path.open("w", encoding="utf-8", newline="") as out:
                yield out
        else:
            with _replacing(path.resolve(), mode) as out:
                yield out
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", ExitStatus.BAD_INPUT) from None


@contextmanager
def _replacing(path: Path, mode: int | None) -> Iterator[TextIO]:
    """Write beside the file, with its mode if it exists, and rename."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            if mode is not None:
                part.chmod(stat.S_IMODE(mode))
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_standard_stream(path: Path) -> bool:
    """Return whether the path names an open file of this process, as /dev/stdout does."""
    first, *rest = path.absolute().parts[1:] or ("",)
    return first == "proc" or (first == "dev" and rest[:1] in (["fd"], ["stdin"], ["stdout"], ["stderr"]))
