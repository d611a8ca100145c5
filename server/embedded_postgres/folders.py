"""The data folder, which may be somebody else's: it and the files that are opened in it are checked.

A service that runs as root on a folder of another user would otherwise write wherever a link leads that this
user has put there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from server.embedded_postgres.binaries import EmbeddedPostgresError


def require_own_folder(folder: Path) -> None:
    """Raise EmbeddedPostgresError for a folder that everybody can write to, or of another user unless we are root."""
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH:
        raise EmbeddedPostgresError(
            f"{folder} can be written to by everybody: chmod o-w it, or point MAILING_DATA_DIR at another folder."
        )
    if os.geteuid() not in (0, found.st_uid):
        raise EmbeddedPostgresError(
            f"{folder} belongs to another user: start the service as that one, or point MAILING_DATA_DIR at another "
            "folder."
        )


def opened_here(path: Path, flags: int) -> int:
    """Open a file that is neither a link nor has a second name, and return its descriptor; make it where it is missing.

    Raise EmbeddedPostgresError for anything else: it may be somebody else's file.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"{path} cannot be opened ({error.strerror}): it should be a file, no link."
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise EmbeddedPostgresError(
            f"{path} has a second name elsewhere, or is no file: remove it, it is none of ours."
        )
    return descriptor
