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
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic import model_validator as checked
from pydantic_core import ErrorDetails, PydanticCustomError

from dispatcher.model.endpoints import DEFAULT_SUCCESS, Endpoint, SuccessRule
from dispatcher.model.rates import RATES, is_rate
from server.config import ConfigError
from server.config.types import ConfiguredEndpoint, EndpointUrl, Token, Transport

MAX_TOKEN_BYTES = 16_384
"""Maximum size of a token file: the token has to fit into the header of every request."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_OWN_SENTENCE = "sentence"
_INT64 = 2**63

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def _rate(value: float) -> float:
    if not is_rate(value):
        raise ValueError
    return value


def _path(value: str, info: ValidationInfo) -> str:
    """Return the path of a file that can be read; a relative one begins at the endpoints file's folder."""
    assert info.context is not None
    try:
        path = Path(info.context["folder"]) / Path(value).expanduser()
        with path.open("rb"):
            return str(path)
    except (OSError, RuntimeError) as error:  # the latter for an unknown home folder
        raise ValueError from error


def _token_of(path: str) -> str:
    """Return the token in a file, without the newline at its end."""
    with Path(path).open("rb") as file:
        data = file.read(MAX_TOKEN_BYTES + 1)
    token = data.decode("latin-1").rstrip("\r\n")
    if not token or len(data) > MAX_TOKEN_BYTES or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError
    return token


def _token_file(value: object, info: ValidationInfo) -> SecretStr:
    if not isinstance(value, str):
        raise ValueError
    try:
        return SecretStr(_token_of(_path(value, info)))
    except OSError as error:
        raise ValueError from error


def _key(expects: str, default: Any = ..., **limits: Any) -> Any:
    """Return a field: what its value should be, its default if it has one, its limits."""
    return Field(default, description=expects, **limits)


_Number = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
_Text = Annotated[str, Field(max_length=200)]


class _Success(BaseModel):
    model_config = _STRICT

    statuses: list[Annotated[int, Field(ge=200, le=299)]] = _key(
        "a list of HTTP statuses from 200 to 299", sorted(DEFAULT_SUCCESS.statuses), min_length=1
    )
    body: bool = _key("true or false", True)
    field: str = _key(
        "the name of a field of the answer's JSON object", DEFAULT_SUCCESS.code_field, min_length=1, max_length=200
    )
    values: list[_Number | _Text] = _key(
        "a list of whole numbers and texts", list(DEFAULT_SUCCESS.accepted), min_length=1, max_length=100
    )

    @checked(mode="after")
    def _a_field_needs_a_body(self) -> Self:
        if not self.body and self.model_fields_set & {"field", "values"}:
            raise PydanticCustomError(_OWN_SENTENCE, "success has a field or values, but body = false looks at no body")
        return self

    def rule(self) -> SuccessRule:
        """Return the dispatcher's rule; the default rule is always the same object, which has a fast path."""
        rule = SuccessRule(frozenset(self.statuses), self.body, self.field, frozenset(self.values))
        return DEFAULT_SUCCESS if rule == DEFAULT_SUCCESS else rule


class _Entry(BaseModel):
    model_config = _STRICT

    url: EndpointUrl = _key("an http:// or https:// address with a host and without user or password")
    token: Token | None = _key("a token of printable ASCII characters without spaces", None, strict=False)
    token_file: Annotated[SecretStr, BeforeValidator(_token_file)] | None = _key(
        "the path of a file that can be read and holds a token of printable ASCII characters without spaces", None
    )
    timeout: float = _key("a number of seconds from 0.05 to 300", 10.0, ge=0.05, le=300)
    connect_timeout: float = _key("a number of seconds from 0.05 to 300", 3.0, ge=0.05, le=300)
    ca_file: Annotated[str, AfterValidator(_path)] | None = _key("the path of a PEM file that can be read", None)
    transport: Transport = _key("fast or httpx", "fast")
    max_rate: Annotated[float, AfterValidator(_rate)] = _key(RATES, 0.0)
    max_concurrency: int = _key("a whole number from 1 to 100000", 1024, ge=1, le=100_000)
    success: _Success = _key("a table with statuses, body, field and values", _Success())

    @checked(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise PydanticCustomError(_OWN_SENTENCE, "token and token_file are both given, one should go")
        return self

    def endpoint(self, name: str) -> Endpoint:
        """Return the dispatcher's endpoint."""
        token = self.token_file or self.token
        return Endpoint(
            name=name,
            url=self.url,
            token=token.get_secret_value() if token else "",
            total_timeout=self.timeout,
            connect_timeout=min(self.connect_timeout, self.timeout),
            max_concurrency=self.max_concurrency,
            ca_file=self.ca_file,
            max_rate=self.max_rate,
            success=self.success.rule(),
        )


def read_endpoints(path: Path) -> list[ConfiguredEndpoint]:
    """Return the endpoints of a file, in its order. Raise ConfigError."""
    tables = _tables(path)
    found, problems = list[ConfiguredEndpoint](), list[str]()
    for name, table in tables.items():
        try:
            if not _NAME.fullmatch(name):
                problems.append(f"{path}: endpoint {name[:80]!r}: the name should be {_NAMES}.")
            entry = _Entry.model_validate(table, context={"folder": path.parent})
            found.append(ConfiguredEndpoint(entry.endpoint(name), entry.transport, str(path)))
        except ValidationError as error:
            problems += [f"{path}: endpoint {name[:80]}: {sentence}" for sentence in _sentences(error)]
    if problems:
        raise ConfigError(problems)
    return found


def _tables(path: Path) -> Mapping[str, object]:
    """Return the tables of the endpoints by their names. Raise ConfigError for a file that has none."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}."]) from None
    tables: Any = document.pop("endpoints", {})
    problems = [
        f"{path}: {key[:80]} is not known here: an endpoint is a table [endpoints.{key[:80]}]." for key in document
    ]
    if not problems and not (isinstance(tables, dict) and tables):
        problems = [f"{path} has no endpoints: each is a table [endpoints.NAME]."]
    if problems:
        raise ConfigError(problems)
    found: Mapping[str, object] = tables
    return found


def _sentences(error: ValidationError) -> Iterator[str]:
    """Yield one sentence per bad key."""
    reported = set[str]()
    for problem in error.errors(include_url=False, include_context=False):
        model, key, path = _place(problem)
        if path in reported:  # one sentence per list or union
            continue
        reported.add(path)
        if problem["type"] == _OWN_SENTENCE:
            yield f"{problem['msg']}."
        elif key is None:
            yield "it should be a table with a url."
        elif key not in model.model_fields:
            yield _unknown(path, key, model)
        elif problem["type"] == "missing":
            yield f"{path} is missing: {model.model_fields[key].description}."
        else:
            yield f"{path} should be {model.model_fields[key].description}{_instead(key, problem['input'])}."


def _place(problem: ErrorDetails) -> tuple[type[BaseModel], str | None, str]:
    """Return the table's model, the key in it, and the key's path; None for the table itself."""
    location = [str(part) for part in problem["loc"][:2]]
    if not location or problem["type"] == _OWN_SENTENCE:
        return _Entry, None, problem["msg"]
    if location[0] == "success" and len(location) > 1:
        return _Success, location[1], ".".join(location)
    return _Entry, location[0], location[0]


def _unknown(path: str, key: str, model: type[BaseModel]) -> str:
    similar = get_close_matches(key, model.model_fields, 1)
    advice = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(model.model_fields)}."
    return f"{path[:80]} is no key of this table: {advice}"


def _instead(key: str, value: object) -> str:
    """Return the end of a sentence that quotes the value, unless it may contain a secret."""
    text = repr(value)
    if key == "token" or isinstance(value, dict | list) or {"@", "?"} & set(text):
        return ""
    return f", not {text[:100]}"
