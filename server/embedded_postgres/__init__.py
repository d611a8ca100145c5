"""A Postgres of our own, for machines where none is given.

Starts the server as a child that cannot outlive its parent, on a folder that belongs to
one service at a time. It knows nothing of mailings; the only thing it hands out is a DSN.
"""

from server.embedded_postgres.binaries import OLDEST_MAJOR, EmbeddedPostgresError
from server.embedded_postgres.server import EmbeddedPostgres

__all__ = ["OLDEST_MAJOR", "EmbeddedPostgres", "EmbeddedPostgresError"]
