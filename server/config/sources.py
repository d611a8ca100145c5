"""The sources of settings: options over the environment, the environment over the file.

The file is TOML, its keys are the settings' names: `pool_size = 20` is `MAILING_POOL_SIZE=20`. A table holds settings
whose names begin alike: `at` in `[report]` is `report_at`.
A secret's variable may end in `_FILE` and then names a file with the value, as orchestrators
provide secrets. Whatever the source, a value is parsed by the same rules.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr, TypeAdapter, ValidationError

from server.config.problems import sentences, unknown_name, unknown_variables
from server.config.settings import ConfigError, Settings, is_path, is_secret, variables_of
from server.config.types import Token

FILE_VARIABLE = "MAILING_CONFIG_FILE"
"""Names the file when no option does."""

MAX_SECRET_BYTES = 16_384
"""Maximum size of a secret's file."""

log = logging.getLogger(__name__)

_FROM_FILE = "_FILE"
_DSN = "dsn"
_TOKEN = "endpoint_token"  # noqa: S105  the name of a setting
_WITHOUT_DSN = frozenset(name for name in Settings.model_fields if name.startswith("postgres_"))
"""The settings that only count where no DSN is given, whatever they contain."""

_SERVICE_LINK = re.compile("(tcp|udp|sctp)://")
"""What Kubernetes puts into POSTGRES_PORT of every pod beside a service called postgres."""

_CHILD_FILE = ""
"""Dispatcher processes get every value in their environment and read no file."""


class Given(NamedTuple):
    """A value, and its source: an option, a variable, or a file's key."""

    value: Any
    place: str


class Loaded(NamedTuple):
    """The settings in force, and the source of each that differs from its default."""

    settings: Settings
    places: Mapping[str, str]


def load_settings(**options: Any) -> Settings:
    """Return the settings in force, with the file that the environment names; see `load`."""
    return load(options=options).settings


def load(config_file: Path | None = None, options: Mapping[str, Any] | None = None) -> Loaded:
    """Return the settings in force and their sources. Raise ConfigError with all problems.

    `config_file` overrides MAILING_CONFIG_FILE; `options` (by the settings' names) override everything.
    """
    environment = {name: value for name, value in os.environ.items() if value}
    path = config_file or (Path(environment[FILE_VARIABLE]) if FILE_VARIABLE in environment else None)
    problems = unknown_variables({*environment}, {FILE_VARIABLE, *map(_file_variable, _secrets())})
    given = _of_file(path, problems) if path else {}
    unused = _WITHOUT_DSN if _DSN in given or {*_variables(_DSN)} & environment.keys() else frozenset()
    given |= _of_environment(environment, unused, problems) | _of_options(options or {}, problems)
    given = {name: one for name, one in given.items() if name not in unused}
    try:
        settings = Settings.model_validate({name: one.value for name, one in given.items()})
    except ValidationError as error:
        problems += sentences(error, {name: one.place for name, one in given.items()})
    if problems:
        raise ConfigError(problems)
    token = given.get(_TOKEN)
    if token is not None and token.place == _file_variable(_TOKEN):
        settings = settings.with_token_file(Path(environment[token.place]).absolute())
    return Loaded(settings, {name: one.place for name, one in given.items()})


def endpoint_token_in(path: Path) -> str:
    """Return the endpoint's token as its file has it now. Raise ValueError, without the token."""
    secret = _secret(path)
    if secret is None:
        raise ValueError(path)
    token: SecretStr = TypeAdapter(Token).validate_python(secret)
    return token.get_secret_value()


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables with which another process of this machine loads the same settings."""
    values = {variables_of(name)[0]: _text(getattr(settings, name)) for name in settings.model_fields_set}
    files = {_file_variable(name): "" for name in _secrets()}
    if settings.endpoint_token_file is not None:  # each process reads it again when it changes
        files[_file_variable(_TOKEN)] = str(settings.endpoint_token_file)
        values |= dict.fromkeys(variables_of(_TOKEN), "")
    return {FILE_VARIABLE: _CHILD_FILE} | files | values


def _of_options(options: Mapping[str, Any], problems: list[str]) -> dict[str, Given]:
    known = Settings.model_fields.keys()
    problems += [unknown_name(f"The option {name[:80]}", name) for name in sorted(options.keys() - known)]
    problems += [
        f"{name} is a secret and no option, which all could see in the list of processes: "
        f"set {variables_of(name)[0]}, {_file_variable(name)} or the file's key."
        for name in _secrets()
        if name in options
    ]
    return {name: Given(value, f"the option {name}") for name, value in options.items() if name in known}


def _of_environment(environment: Mapping[str, str], unused: Collection[str], problems: list[str]) -> dict[str, Given]:
    found = {}
    for name in (one for one in Settings.model_fields if one not in unused):
        variable = next((one for one in variables_of(name) if one in environment), None)
        pointer = _file_variable(name)
        if is_secret(name) and pointer in environment:
            if variable:
                problems.append(f"{variable} and {pointer} are both set, one should go.")
            elif (secret := _secret(Path(environment[pointer]))) is None:
                problems.append(f"{pointer} should be the path of a file that can be read and holds the value.")
            else:
                found[name] = Given(secret, pointer)
        elif variable and name == "postgres_port" and _SERVICE_LINK.match(environment[variable]):
            log.warning("%s is ignored: it is the address of a Kubernetes service and no port.", variable)
        elif variable:
            found[name] = Given(environment[variable], variable)
    return found


def _of_file(path: Path, problems: list[str]) -> dict[str, Given]:
    path = path.expanduser().absolute()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not UTF-8"
        raise ConfigError([f"The configuration file {path} cannot be read: {why}."]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"The configuration file {path} is not TOML: {error}."]) from None
    found = {}
    for key, name, value in _entries(document):
        if name not in Settings.model_fields:
            problems.append(unknown_name(f"{path}: {key[:80]}", name))
        elif value != "":
            found[name] = Given(_read(name, value, path.parent), f"{path}: {key}")
    return found


def _entries(document: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """Yield each value of a file with its key as people write it and the name of its setting."""
    for key, value in document.items():
        if isinstance(value, dict) and any(name.startswith(f"{key}_") for name in Settings.model_fields):
            yield from ((f"{key}.{inner}", f"{key}_{inner}", one) for inner, one in value.items())
        else:
            yield key, key, value


def _read(name: str, value: object, folder: Path) -> object:
    """Return a value of the file as it would be in the environment; paths are relative to the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, str) and is_path(name):
        return str(folder / Path(value).expanduser())
    return value


def _secret(path: Path) -> str | None:
    """Return the contents of a file without the newline at its end; None if they cannot be a value."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text and len(data) <= MAX_SECRET_BYTES else None


def _secrets() -> list[str]:
    return [name for name in Settings.model_fields if is_secret(name)]


def _variables(name: str) -> tuple[str, ...]:
    return (*variables_of(name), _file_variable(name))


def _file_variable(name: str) -> str:
    return variables_of(name)[0] + _FROM_FILE


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None:
        return ""
    return json.dumps(list(value)) if isinstance(value, list | tuple | frozenset) else str(value)
