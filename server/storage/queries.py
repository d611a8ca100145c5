"""Loads named SQL: every statement of the project is in an `sql/*.sql` file.

`-- name: NAME` opens a statement, with a comment where the name is not enough, and `-- fragment: NAME`
a piece that other statements of the file include as `{NAME}`. A file with `-- include: NAME` before
its first statement also has the statements of `sql/shared/NAME.sql`. Parameters have names
(`$bucket`), and so have the numbers of enums (`{Status.PENDING}`); Postgres gets `$1` and plain
numbers. A file is loaded and checked on import. A call with a parameter missing or too many raises
TypeError. Where a statement has the comment `FURTHER`, more conditions can be put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any

from dispatcher.model.states import AudienceMode, BreakerState, MailingState, Reason, Semantics, Status, Suspension
from server.domain.client_import import Spoken
from server.domain.clients import OptOutOrigin
from server.domain.daily_report import ReportState
from server.domain.receipts import Receipt

_INCLUDE = re.compile(r"^-- include: (\w+)\n", re.MULTILINE)
_OPENING = re.compile(r"^-- (name|fragment): (\w+)\n", re.MULTILINE)
_REFERENCE = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_PARAMETER = re.compile(r"\$([a-z]\w*)")
_NUMBER = re.compile(r"\$\d+")
FURTHER = "/* further conditions */"


class Figure(IntEnum):
    """What a row of mailing_figures counts, its column `kind`: messages by attempts, by latency and by minute."""

    ATTEMPTS = 1
    LATENCY = 2
    DELIVERED = 3
    FAILED = 4


_ENUMS: dict[str, type[IntEnum]] = {
    enum.__name__: enum
    for enum in (
        AudienceMode,
        BreakerState,
        Figure,
        MailingState,
        OptOutOrigin,
        Reason,
        Receipt,
        ReportState,
        Semantics,
        Spoken,
        Status,
        Suspension,
    )
}


class Query:
    """One statement: its `text` with positional parameters, and their `names` in that order."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source
        self.names = tuple(dict.fromkeys(_PARAMETER.findall(source)))
        positions = {parameter: f"${number}" for number, parameter in enumerate(self.names, 1)}
        self.text = _PARAMETER.sub(lambda match: positions[match[1]], source)
        self.bind = _binder(name, self.text, self.names)
        """Take the parameters as keywords; return the arguments of asyncpg's methods: the text, then the values."""

    def narrowed(self, condition: str) -> Query:
        """Return the statement with a condition, and its parameters, in each place for further ones."""
        return _narrowed(self, condition)

    def with_text(self, old: str, new: str) -> Query:
        """Return the statement with another text in its source."""
        return Query(self._name, self._source.replace(old, new))


@lru_cache(maxsize=1000)
def _narrowed(query: Query, condition: str) -> Query:
    return query.with_text(FURTHER, f"AND {condition}")


def load_queries(file: str, package: str = "server.storage") -> dict[str, Query]:
    """Return the statements of `file` in the `sql` folder of `package`, by name.

    Raise ValueError when a name occurs twice, a fragment or a member of an enum does not exist,
    or a parameter has a number instead of a name.
    """
    folder = files(package).joinpath("sql")
    text = folder.joinpath(file).read_text(encoding="utf-8")
    shared = [folder.joinpath("shared", f"{name}.sql").read_text(encoding="utf-8") for name in _INCLUDE.findall(text)]
    parts = [part for one in (text, *shared) for part in _OPENING.split(one)[1:]]
    kinds, names = parts[::3], parts[1::3]
    bodies = [body.strip().rstrip(";") for body in parts[2::3]]
    if len(set(names)) != len(names):
        raise ValueError(f"{package}/sql/{file}: a name occurs twice")
    fragments = {n: b for k, n, b in zip(kinds, names, bodies, strict=True) if k == "fragment"}
    sources = {n: b for k, n, b in zip(kinds, names, bodies, strict=True) if k == "name"}
    return {
        name: Query(name, _resolve(body, fragments, f"{package}/sql/{file}, {name}")) for name, body in sources.items()
    }


def _resolve(body: str, fragments: dict[str, str], where: str) -> str:
    """Return the statement with its fragments and the numbers of its enums put in."""
    if number := _NUMBER.search(body):
        raise ValueError(f"{where}: {number[0]} is a parameter without a name")

    def replacement(reference: re.Match[str]) -> str:
        name, member = reference.groups()
        if member is not None:
            if name not in _ENUMS or member not in _ENUMS[name].__members__:
                raise ValueError(f"{where}: no {name}.{member}")
            return str(_ENUMS[name][member].value)
        if name not in fragments:
            raise ValueError(f"{where}: no fragment {name!r}")
        return _resolve(fragments[name], fragments, where)

    return _REFERENCE.sub(replacement, body)


def _binder(name: str, text: str, names: tuple[str, ...]) -> Callable[..., tuple[Any, ...]]:
    """Return a function of keywords, made like those of `namedtuple`: Python itself checks its arguments."""
    scope: dict[str, Any] = {}
    parameters = ", ".join(names)
    source = f"def {name}({'*, ' if names else ''}{parameters}): return ({text!r}, {parameters})"
    exec(source, scope)  # noqa: S102 - of names that are identifiers, from files of this package
    binder: Callable[..., tuple[Any, ...]] = scope[name]
    return binder
