"""The files of named statements, and which of them make what later ones read."""

from __future__ import annotations

from tests.support.project import ROOT

FILES = sorted(path.name for path in (ROOT / "server" / "storage" / "sql").glob("*.sql"))
SETS_UP = ("create_staging", "create_latest", "create_touched")
"""Statements of an import that make what later ones of the same file read."""
