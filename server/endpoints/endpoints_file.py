"""The endpoints file: several named endpoints in TOML, a table `[endpoints.NAME]` for each.

Read once, at the start, and checked as a whole: `ConfigError` has one sentence per problem,
which names the file, the endpoint and the key. Tokens are never shown. docs/endpoints-and-delivery.md
describes the keys; a missing key has the default of its environment variable.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.config import ConfigError
from server.config.types import ConfiguredEndpoint
from server.domain.inbound import InboundSource
from server.domain.receipts import ReceiptSource
from server.endpoints.endpoint_entry import TABLES, Entry, keys_of
from server.endpoints.entry_types import MAX_TOKEN_BYTES, OWN_SENTENCE, Reading

__all__ = ["MAX_TOKEN_BYTES", "read_endpoints", "read_entries"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_SECRETS = frozenset({"token", "value", "password", "user", "secret", "secrets"})
_ARTICLES = {"endpoints": "an endpoint", "webhooks": "a webhook"}


def read_endpoints(path: Path, receipts_url: str | None = None) -> list[ConfiguredEndpoint]:
    """Return the endpoints of a file, in its order; `receipts_url` is where gateways report. Raise ConfigError."""
    found = []
    for name, read in _read(path, receipts_url).items():
        again = _Rereading(name, read.table, path, receipts_url)
        found.append(
            _configured(name, read.entry, path, receipts_url)._replace(secret_files=read.secret_files, reread=again)
        )
    return found


def _configured(name: str, entry: Entry, path: Path, receipts_url: str | None) -> ConfiguredEndpoint:
    return ConfiguredEndpoint(
        entry.endpoint(name, receipts_url),
        entry.transport,
        str(path),
        _receipts_of(entry),
        _inbound_of(entry),
        grant=entry.auth.oauth2.grant() if entry.auth.oauth2 else None,
    )


def read_entries(path: Path, receipts_url: str | None = None) -> dict[str, Entry]:
    """Return the tables of a file's endpoints, by their names and in its order. Raise ConfigError."""
    return {name: read.entry for name, read in _read(path, receipts_url).items()}


class _Read(NamedTuple):
    """A table as it stands in the file, what it says, and the files of its secrets."""

    table: object
    entry: Entry
    secret_files: tuple[Path, ...]


class _Rereading:
    """Reads the secrets of an endpoint again; it does not show what the file says."""

    def __init__(self, name: str, table: object, path: Path, receipts_url: str | None) -> None:
        self._name, self._table, self._path, self._receipts_url = name, table, path, receipts_url

    def __call__(self) -> ConfiguredEndpoint:
        """Return the endpoint with its secrets as they are in their files now. Raise ValueError."""
        reading = Reading(self._path.parent, [], self._receipts_url)
        entry = Entry.model_validate(self._table, context=reading)
        found = _configured(self._name, entry, self._path, self._receipts_url)
        return found._replace(secret_files=tuple(reading.secret_files), reread=self)


def _read(path: Path, receipts_url: str | None) -> dict[str, _Read]:
    """Read and check a file as a whole. Raise ConfigError."""
    found, problems = dict[str, _Read](), list[str]()
    for name, table in tables_of(path).items():
        reading = Reading(path.parent, [], receipts_url)
        try:
            if not _NAME.fullmatch(name):
                problems.append(f"{path}: endpoint {name[:80]!r}: the name should be {_NAMES}.")
            found[name] = _Read(table, Entry.model_validate(table, context=reading), tuple(reading.secret_files))
        except ValidationError as error:
            problems += [f"{path}: endpoint {name[:80]}: {sentence}" for sentence in sentences_of(error)]
    if problems:
        raise ConfigError(problems)
    return found


def _inbound_of(entry: Entry) -> InboundSource | None:
    if entry.inbound is None:
        return None
    verify = entry.inbound.verify
    return InboundSource(entry.inbound.rules(), verify.verifier(), verify.needs_url)


def _receipts_of(entry: Entry) -> ReceiptSource | None:
    if entry.receipts is None:
        return None
    verify = entry.receipts.verify
    return ReceiptSource(entry.receipts.rules(), verify.verifier(), verify.needs_url)


def tables_of(path: Path, kind: str = "endpoints") -> Mapping[str, object]:
    """Return the tables `[KIND.NAME]` of a file by their names. Raise ConfigError for a file that has none."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}."]) from None
    tables: Any = document.pop(kind, {})
    problems = [
        f"{path}: {key[:80]} is not known here: {_ARTICLES[kind]} is a table [{kind}.{key[:80]}]." for key in document
    ]
    if not problems and not (isinstance(tables, dict) and tables):
        problems = [f"{path} has no {kind}: each is a table [{kind}.NAME]."]
    if problems:
        raise ConfigError(problems)
    found: Mapping[str, object] = tables
    return found


def sentences_of(error: ValidationError, top: type[BaseModel] = Entry) -> Iterator[str]:
    """Yield one sentence per bad key."""
    reported = set[str]()
    for problem in error.errors(include_url=False, include_context=False):
        model, key, path = _place(problem, top)
        if path in reported:  # one sentence per list or union
            continue
        reported.add(path)
        if problem["type"] == OWN_SENTENCE:
            yield f"{problem['msg']}."
        elif key is None:
            yield "it should be a table with a url."
        elif key not in keys_of(model):
            yield _unknown(path, key, model)
        elif problem["type"] == "missing":
            yield f"{path} is missing: {keys_of(model)[key].description}."
        else:
            yield f"{path} should be {keys_of(model)[key].description}{_instead(key, problem['input'])}."


def _place(problem: ErrorDetails, top: type[BaseModel]) -> tuple[type[BaseModel], str | None, str]:
    """Return the table's model, the key in it, and the key's path; None for the table itself."""
    model = top
    key, path = None, ""
    if problem["type"] == OWN_SENTENCE:
        return model, None, problem["msg"]
    inner: type[BaseModel] | None = model
    for part in problem["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif inner is None:
            break
        else:
            model, key, path = inner, part, f"{path}.{part}" if path else part
            inner = TABLES.get((model, part))
        if inner is None:
            break
    return model, key, path


def _unknown(path: str, key: str, model: type[BaseModel]) -> str:
    similar = get_close_matches(key, keys_of(model), 1)
    advice = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(keys_of(model))}."
    return f"{path[:80]} is no key of this table: {advice}"


def _instead(key: str, value: object) -> str:
    """Return the end of a sentence that quotes the value, unless it may contain a secret."""
    text = repr(value)
    if key in _SECRETS or isinstance(value, dict | list) or {"@", "?"} & set(text):
        return ""
    return f", not {text[:100]}"
