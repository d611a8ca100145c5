"""The keys of one endpoint in the endpoints file: their types, their limits, and the endpoint they describe.

docs/endpoints-and-delivery.md and docs/gateways.md describe the keys. Every value is checked here, so that an
endpoint which cannot work ends the start. Secrets are put in once; a changed file of one means a new endpoint.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic import model_validator as checked
from pydantic_core import PydanticCustomError

from dispatcher.model.answers import CLASSES, AnswerRules, ErrorRule, Match, Pointer, Source, typed
from dispatcher.model.endpoints import DEFAULT_SUCCESS, Endpoint, SuccessRule
from dispatcher.model.rates import RATES, is_rate
from dispatcher.model.requests import DescriptionError, RequestForm, RequestText, compile_request
from server.config.types import EndpointUrl, Token, Transport

MAX_TOKEN_BYTES = 16_384
"""Maximum size of a token file: the token has to fit into the header of every request."""

MASK = "***"
"""Stands for a secret where a request is shown."""

OWN_SENTENCE = "sentence"
"""The type of a problem that is a whole sentence, but for the full stop."""

_INT64 = 2**63
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Reading(NamedTuple):
    """What validation needs to know: the folder of the file, and where the paths of secrets are collected."""

    folder: Path
    secret_files: list[Path]
    receipts_url: str | None = None


def _refuse(sentence: str) -> PydanticCustomError:
    return PydanticCustomError(OWN_SENTENCE, "{sentence}", {"sentence": sentence})


def _reading(info: ValidationInfo) -> Reading:
    assert isinstance(info.context, Reading)
    return info.context


def _rate(value: float) -> float:
    if not is_rate(value):
        raise ValueError
    return value


def _path(value: str, info: ValidationInfo) -> str:
    """Return the path of a file that can be read; a relative one begins at the endpoints file's folder."""
    try:
        path = _reading(info).folder / Path(value).expanduser()
        with path.open("rb"):
            return str(path)
    except (OSError, RuntimeError) as error:  # the latter for an unknown home folder
        raise ValueError from error


def _content(value: object, info: ValidationInfo) -> str:
    """Return the text in a file of a secret, without the newline at its end, and remember the file."""
    if not isinstance(value, str):
        raise ValueError
    path = Path(_path(value, info))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ValueError from error
    text = data.decode("latin-1").rstrip("\r\n")
    if not text or len(data) > MAX_TOKEN_BYTES:
        raise ValueError
    _reading(info).secret_files.append(path)
    return text


def _token_file(value: object, info: ValidationInfo) -> SecretStr:
    token = _content(value, info)
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError
    return SecretStr(token)


def _secret_file(value: object, info: ValidationInfo) -> SecretStr:
    secret = _content(value, info)
    if not secret.isprintable():
        raise ValueError
    return SecretStr(secret)


def _secrets(value: object, info: ValidationInfo) -> dict[str, SecretStr]:
    """Return the secrets by their names; `NAME_file` is the path of the file that holds NAME."""
    if not isinstance(value, dict):
        raise ValueError
    found = {}
    for key, text in value.items():
        name = key.removesuffix("_file")
        if not re.fullmatch(r"\w{1,64}", name) or name in found or not isinstance(text, str) or not text:
            raise ValueError
        found[name] = SecretStr(text) if name == key else _secret_file(text, info)
    return found


def _json(value: object) -> object:
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


def _pointer(value: object) -> Pointer:
    if not isinstance(value, str):
        raise ValueError
    return Pointer.parse(value)


def _source(value: object) -> Source:
    if not isinstance(value, str):
        raise ValueError
    return Source.parse(value)


def _key(expects: str, default: Any = ..., **limits: Any) -> Any:
    """Return a field: what its value should be, its default if it has one, its limits."""
    return Field(default, description=expects, **limits)


_Number = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
_Text = Annotated[str, Field(max_length=200)]
_Statuses = list[Annotated[int, Field(ge=100, le=599)]]
_Values = list[bool | _Number | float | _Text]
_Pointer = Annotated[Any, BeforeValidator(_pointer)]
_Source = Annotated[Any, BeforeValidator(_source)]
_SecretFile = Annotated[SecretStr, BeforeValidator(_secret_file)]
_Table = dict[str, Any]

_A_POINTER = "a JSON pointer, such as /messages/0/status"
_SOME_VALUES = "a list of numbers, texts, true and false"
_SOME_STATUSES = "a list of HTTP statuses from 100 to 599"


class Success(BaseModel):
    """Which answers mean that a message was accepted."""

    model_config = _STRICT

    statuses: _Statuses = _key(_SOME_STATUSES, sorted(DEFAULT_SUCCESS.statuses), min_length=1)
    body: bool = _key("true or false", True)
    field: str = _key(
        "the name of a field of the answer's JSON object", DEFAULT_SUCCESS.code_field, min_length=1, max_length=200
    )
    at: _Pointer | None = _key(_A_POINTER, None)
    values: _Values = _key(_SOME_VALUES, list(DEFAULT_SUCCESS.accepted), min_length=1, max_length=100)

    @checked(mode="after")
    def _a_field_needs_a_body(self) -> Self:
        given = self.model_fields_set
        if not self.body and given & {"field", "at", "values"}:
            raise _refuse("success has a field or values, but body = false looks at no body")
        if given >= {"field", "at"}:
            raise _refuse("success has field and at, one should go: field is at for a name at the top")
        return self

    def rule(self) -> SuccessRule | None:
        """Return the simple rule that says the same, if there is one; the default is the same object always."""
        simple = all(type(value) in (int, str) for value in self.values)
        if self.at is not None or not simple or not set(self.statuses) <= DEFAULT_SUCCESS.statuses:
            return None
        accepted = frozenset(value for value in self.values if isinstance(value, int | str))
        rule = SuccessRule(frozenset(self.statuses), self.body, self.field, accepted)
        return DEFAULT_SUCCESS if rule == DEFAULT_SUCCESS else rule

    def match(self) -> Match:
        """Return the answers that mean success."""
        at = (self.at or Pointer((self.field,))) if self.body else None
        anything = self.at is not None and "values" not in self.model_fields_set
        return Match(frozenset(self.statuses), at, None if at is None or anything else typed(self.values))


class ErrorEntry(BaseModel):
    """Answers of one class of error."""

    model_config = _STRICT

    statuses: _Statuses | None = _key(_SOME_STATUSES, None, min_length=1)
    at: _Pointer | None = _key(_A_POINTER, None)
    values: _Values | None = _key(_SOME_VALUES, None, min_length=1, max_length=1000)
    class_: Literal["throttled", "transient", "refused", "opted_out", "credentials"] = _key(
        ", ".join([*list(CLASSES)[:-1], f"or {list(CLASSES)[-1]}"]), alias="class"
    )

    @checked(mode="after")
    def _values_are_somewhere(self) -> Self:
        if self.values is not None and self.at is None:
            raise _refuse("an entry of errors has values, but no at that says where they are")
        return self

    def rule(self) -> ErrorRule:
        """Return the dispatcher's rule."""
        statuses = None if self.statuses is None else frozenset(self.statuses)
        values = None if self.values is None else typed(self.values)
        return ErrorRule(Match(statuses, self.at, values), CLASSES[self.class_])


class Basic(BaseModel):
    """A user and a password."""

    model_config = _STRICT

    user: str = _key("a text without ':'", pattern="[^:]*")
    password: SecretStr | None = _key("a text", None, strict=False)
    password_file: _SecretFile | None = _key("the path of a file that can be read and holds a password", None)

    @checked(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise _refuse("auth.basic should have either password or password_file")
        return self


class Auth(BaseModel):
    """How requests show who sends them; nothing at all means a bearer token."""

    model_config = _STRICT

    basic: Basic | None = _key("a table with user and password", None)
    header: str | None = _key("the name of a header", None)
    value: str | None = _key("a text", None)
    value_file: _SecretFile | None = _key("the path of a file that can be read and holds one line of text", None)

    @checked(mode="after")
    def _one_way(self) -> Self:
        if self.basic is not None and self.header is not None:
            raise _refuse("auth has basic and header, one should go")
        if (self.header is None) != (self.value is None and self.value_file is None) or (
            self.value and self.value_file
        ):
            raise _refuse("auth should have a header with either value or value_file")
        return self

    def headers(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the headers, and the constants in them."""
        if self.header is not None and self.value is not None:
            return {self.header: self.value}, {}
        if self.header is not None and self.value_file is not None:
            return {self.header: "{secret.auth_}"}, {"secret.auth_": self.value_file.get_secret_value()}
        if self.basic is not None:
            password = self.basic.password or self.basic.password_file
            assert password is not None
            pair = f"{self.basic.user}:{password.get_secret_value()}"
            encoded = base64.b64encode(pair.encode("utf-8", "replace")).decode("ascii")
            return {"Authorization": "{secret.auth_}"}, {"secret.auth_": f"Basic {encoded}"}
        return {}, {}


def _masked(value: str) -> str:
    """Return a constant without what is secret in it."""
    return f"Basic {MASK}" if value.startswith("Basic ") else MASK


def _auth(value: object) -> object:
    return {} if value == "bearer" else value


class Entry(BaseModel):
    """All keys of an endpoint."""

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
    success: Success = _key("a table with statuses, body, field, at and values", Success())
    method: Literal["POST", "PUT", "PATCH", "GET"] = _key("POST, PUT, PATCH or GET", "POST")
    auth: Annotated[Auth, BeforeValidator(_auth)] = _key(
        "bearer, or a table with basic, or with header and value", Auth()
    )
    secrets: Annotated[dict[str, SecretStr], BeforeValidator(_secrets)] = _key(
        "a table of texts by name; NAME_file is the path of a file that can be read and holds NAME", {}
    )
    headers: dict[str, str] = _key("a table of texts", {})
    query: _Table = _key("a table of texts, numbers, true and false, or lists of these", {})
    json_: Annotated[Any, BeforeValidator(_json)] = _key(
        "a table or a list, without dates and times", None, alias="json"
    )
    form: _Table | None = _key("a table of texts, numbers, true and false, or lists of these", None)
    requires: list[Annotated[str, Field(pattern=r"^\w{1,64}$")]] = _key("a list of names of attributes", [])
    errors: list[ErrorEntry] = _key("a list of tables with class, and statuses, at or values", [], max_length=100)
    retry_after: _Source | None = _key("a JSON pointer, or header:NAME", None)
    provider_id: _Source | None = _key("a JSON pointer, or header:NAME", None)

    @checked(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise _refuse("token and token_file are both given, one should go")
        return self

    @checked(mode="after")
    def _requests_can_be_made(self, info: ValidationInfo) -> Self:
        try:
            self.request("", _reading(info).receipts_url)
        except DescriptionError as error:
            raise _refuse(f"{error.key} {error}") from None
        return self

    def endpoint(self, name: str, receipts_url: str | None = None, masked: bool = False) -> Endpoint:
        """Return the dispatcher's endpoint; `masked` without its secrets, to be shown."""
        token = self.token_file or self.token
        if masked and token:
            token = SecretStr(MASK)
        rule = self.success.rule()
        further = rule is None or self.errors or self.retry_after is not None or self.provider_id is not None
        return Endpoint(
            name=name,
            url=self.url,
            token=token.get_secret_value() if token else "",
            total_timeout=self.timeout,
            connect_timeout=min(self.connect_timeout, self.timeout),
            max_concurrency=self.max_concurrency,
            ca_file=self.ca_file,
            max_rate=self.max_rate,
            success=rule or DEFAULT_SUCCESS,
            request=self.request(name, receipts_url, masked),
            answers=self._answers() if further else None,
        )

    def _answers(self) -> AnswerRules:
        errors = tuple(one.rule() for one in self.errors)
        return AnswerRules(self.success.match(), errors, self.retry_after, self.provider_id)

    def request(self, name: str, receipts_url: str | None, masked: bool = False) -> RequestForm | None:
        """Return the form of the requests; None for those of the delivery protocol. Raise DescriptionError."""
        given = self.model_fields_set & {"method", "auth", "headers", "query", "json_", "form", "requires", "secrets"}
        if not given and "{" not in self.url:
            return None
        headers, constants = self.auth.headers()
        constants |= {f"secret.{key}": secret.get_secret_value() for key, secret in self.secrets.items()}
        if masked:
            constants = {key: _masked(value) for key, value in constants.items()}
        return compile_request(
            RequestText(
                url=self.url,
                method=self.method,
                headers=self.headers | headers,
                query=self.query,
                json=self.json_,
                form=self.form,
                requires=self.requires,
                constants=constants,
            )
        )


def keys_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the keys of a table as they stand in the file, with their fields."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


TABLES: Mapping[tuple[type[BaseModel], str], type[BaseModel]] = {
    (Entry, "success"): Success,
    (Entry, "errors"): ErrorEntry,
    (Entry, "auth"): Auth,
    (Auth, "basic"): Basic,
}
"""The models of tables within tables."""
