"""Loads named SQL: every statement of the project stands in an `sql/*.sql` file.

A file is a row of statements, each opened by `-- name: NAME` and, where the name does not say
it all, a comment. `-- fragment: NAME` opens a piece that is no statement: others of the same file
include it as `{NAME}`.
"""

from __future__ import annotations

import re
from importlib.resources import files

_OPENING = re.compile(r"^-- (name|fragment): (\w+)\n", re.MULTILINE)
_INCLUSION = re.compile(r"\{(\w+)\}")


def load_queries(file: str, package: str = "server.storage") -> dict[str, str]:
    """Return the statements of `file` in the `sql` folder of `package`, by name.

    Raise ValueError when a name occurs twice or an included fragment is missing.
    """
    text = files(package).joinpath("sql", file).read_text(encoding="utf-8")
    parts = _OPENING.split(text)[1:]
    kinds, names = parts[::3], parts[1::3]
    bodies = [body.strip().rstrip(";") for body in parts[2::3]]
    if len(set(names)) != len(names):
        raise ValueError(f"{package}/sql/{file}: a name occurs twice")
    fragments = {n: b for k, n, b in zip(kinds, names, bodies, strict=True) if k == "fragment"}
    statements = {n: b for k, n, b in zip(kinds, names, bodies, strict=True) if k == "name"}
    return {name: _include(body, fragments, f"{package}/sql/{file}") for name, body in statements.items()}


def _include(body: str, fragments: dict[str, str], where: str) -> str:
    def fragment(match: re.Match[str]) -> str:
        if match[1] not in fragments:
            raise ValueError(f"{where}: no fragment {match[1]!r}")
        return fragments[match[1]]

    return _INCLUSION.sub(fragment, body)
