"""Types of the keys in the endpoints file: secrets and their files, pointers, and sentences of their own.

A value that cannot be used raises ValueError, never with a secret in it; the sentence for people is made where the
key is known.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zoneinfo import available_timezones

import orjson
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from dispatcher.model.answers import Pointer, Source
from dispatcher.model.rates import is_rate

MAX_TOKEN_BYTES = 16_384
"""Maximum size of a token file: the token has to fit into the header of every request."""

MASK = "***"
"""Stands for a secret where a request is shown."""

OWN_SENTENCE = "sentence"
"""The type of a problem that is a whole sentence, but for the full stop."""

INT64 = 2**63
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Reading(NamedTuple):
    """What validation needs to know: the folder of the file, and where the paths of secrets are collected."""

    folder: Path
    secret_files: list[Path]
    receipts_url: str | None = None


def refuse(sentence: str) -> PydanticCustomError:
    """Return the error of a problem that has a whole sentence of its own, without the full stop."""
    return PydanticCustomError(OWN_SENTENCE, "{sentence}", {"sentence": sentence})


def reading_of(info: ValidationInfo) -> Reading:
    """Return what the validation was begun with."""
    assert isinstance(info.context, Reading)
    return info.context


def rate(value: float) -> float:
    """Return a rate that can be kept."""
    if not is_rate(value):
        raise ValueError
    return value


def time_zone(value: str) -> str:
    """Return the name of a time zone; empty for none."""
    if value and value not in available_timezones():
        raise ValueError
    return value


def readable_path(value: str, info: ValidationInfo) -> str:
    """Return the path of a file that can be read; a relative one begins at the endpoints file's folder."""
    try:
        path = reading_of(info).folder / Path(value).expanduser()
        with path.open("rb"):
            return str(path)
    except (OSError, RuntimeError) as error:  # the latter for an unknown home folder
        raise ValueError from error


def _content(value: object, info: ValidationInfo) -> str:
    """Return the text in a file of a secret, without the newline at its end, and remember the file."""
    if not isinstance(value, str):
        raise ValueError
    path = Path(readable_path(value, info))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ValueError from error
    text = data.decode("latin-1").rstrip("\r\n")
    if not text or len(data) > MAX_TOKEN_BYTES:
        raise ValueError
    reading_of(info).secret_files.append(path)
    return text


def token_in_file(value: object, info: ValidationInfo) -> SecretStr:
    """Return the token in a file."""
    token = _content(value, info)
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError
    return SecretStr(token)


def secret_file(value: object, info: ValidationInfo) -> SecretStr:
    """Return the secret in a file: one line of any characters."""
    secret = _content(value, info)
    if not secret.isprintable():
        raise ValueError
    return SecretStr(secret)


def secret_table(value: object, info: ValidationInfo) -> dict[str, SecretStr]:
    """Return the secrets by their names; `NAME_file` is the path of the file that holds NAME."""
    if not isinstance(value, dict):
        raise ValueError
    found = {}
    for key, text in value.items():
        name = key.removesuffix("_file")
        if not re.fullmatch(r"\w{1,64}", name) or name in found or not isinstance(text, str) or not text:
            raise ValueError
        found[name] = SecretStr(text) if name == key else secret_file(text, info)
    return found


def json_value(value: object) -> object:
    """Return a table or list that JSON can hold."""
    if not isinstance(value, dict | list):
        raise ValueError
    try:
        orjson.dumps(value)
        if _holds_times(value):
            raise ValueError
    except TypeError as error:  # a number that is too large, or a text that is no UTF-8
        raise ValueError from error
    return value


def _holds_times(value: object) -> bool:
    """Return whether there are dates or times in it, which JSON does not have."""
    if isinstance(value, dict | list):
        return any(map(_holds_times, value.values() if isinstance(value, dict) else value))
    return not (value is None or isinstance(value, str | int | float))


def pointer(value: object) -> Pointer:
    """Return the JSON pointer that a text spells."""
    if not isinstance(value, str):
        raise ValueError
    return Pointer.parse(value)


def source(value: object) -> Source:
    """Return what `header:NAME` or a JSON pointer names."""
    if not isinstance(value, str):
        raise ValueError
    return Source.parse(value)


def key(expects: str, default: Any = ..., **limits: Any) -> Any:
    """Return a field: what its value should be, its default if it has one, its limits."""
    return Field(default, description=expects, **limits)


Number = Annotated[int, Field(ge=-INT64, lt=INT64)]
Text = Annotated[str, Field(max_length=200)]
Statuses = list[Annotated[int, Field(ge=100, le=599)]]
Values = list[bool | Number | float | Text]
PointerText = Annotated[Any, BeforeValidator(pointer)]
SourceText = Annotated[Any, BeforeValidator(source)]
SecretFile = Annotated[SecretStr, BeforeValidator(secret_file)]
Table = dict[str, Any]
