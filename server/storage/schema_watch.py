"""Knows whether the database has a newer schema than this release: then its dispatcher claims nothing.

Migrations only expand what the previous release uses, so what is in flight is still recorded and the API
goes on; what such a replica has not begun is left to replicas of the newer release. Every heartbeat
tells the version, and a migration hints at all of them.
"""

from __future__ import annotations

import logging

from server.storage.migrate import load_migrations

log = logging.getLogger(__name__)

NEWER_SCHEMA = "newer schema: replace this replica"
"""The reason of a replica that claims nothing for that."""


class SchemaWatch:
    """`known` is the newest version of this release; `is_newer` whether the database is ahead of it."""

    def __init__(self, known: str | None = None) -> None:
        self.is_newer = False
        self._known = known or load_migrations()[-1].version

    def seen(self, version: str) -> None:
        """Take in the newest version of the database."""
        is_newer = version > self._known
        if is_newer and not self.is_newer:
            log.warning(
                "the database has schema version %s and this release knows %s: nothing more is claimed here, replace "
                "this replica by one of the newer release",
                version,
                self._known,
            )
        elif self.is_newer and not is_newer:
            log.warning("the database has schema version %s again: claiming resumes", version)
        self.is_newer = is_newer
