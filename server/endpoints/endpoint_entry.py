"""The keys of one endpoint in the endpoints file: their types, their limits, and the endpoint they describe.

docs/endpoints-and-delivery.md and docs/gateways.md describe the keys. Every value is checked here, so that an
endpoint which cannot work ends the start. Secrets are put in once; a changed file of one means a new endpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic import model_validator as checked

from dispatcher.model.answers import CLASSES, AnswerRules, ErrorRule, Match, Pointer, typed
from dispatcher.model.endpoints import DEFAULT_SUCCESS, Endpoint, SuccessRule
from dispatcher.model.quotas import MOST_PER_DAY, day_limit
from dispatcher.model.rates import RATES
from dispatcher.model.request_batches import MOST, BatchText
from dispatcher.model.requests import DescriptionError, RequestForm, RequestText, compile_request
from server.config.types import EndpointUrl, Token, TokenGrant, Transport
from server.endpoints.entry_types import (
    MASK,
    STRICT,
    PointerText,
    SecretFile,
    SourceText,
    Statuses,
    Table,
    Values,
    json_value,
    key,
    rate,
    readable_path,
    reading_of,
    refuse,
    secret_table,
    time_zone,
    token_in_file,
)
from server.endpoints.receipt_entry import Inbound, Login, Receipts, Signature, Verify

_A_POINTER = "a JSON pointer, such as /messages/0/status"
_SOME_VALUES = "a list of numbers, texts, true and false"
_RESPONSE_BYTES, _RESULT_BYTES = 65_536, 1024
"""Maximum size of an answer, and what it grows by with each message of a request."""

_SOME_STATUSES = "a list of HTTP statuses from 100 to 599"


class Success(BaseModel):
    """Which answers mean that a message was accepted."""

    model_config = STRICT

    statuses: Statuses = key(_SOME_STATUSES, sorted(DEFAULT_SUCCESS.statuses), min_length=1)
    body: bool = key("true or false", True)
    field: str = key(
        "the name of a field of the answer's JSON object", DEFAULT_SUCCESS.code_field, min_length=1, max_length=200
    )
    at: PointerText | None = key(_A_POINTER, None)
    values: Values = key(_SOME_VALUES, list(DEFAULT_SUCCESS.accepted), min_length=1, max_length=100)

    @checked(mode="after")
    def _a_field_needs_a_body(self) -> Self:
        given = self.model_fields_set
        if not self.body and given & {"field", "at", "values"}:
            raise refuse("success has a field or values, but body = false looks at no body")
        if given >= {"field", "at"}:
            raise refuse("success has field and at, one should go: field is at for a name at the top")
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

    model_config = STRICT

    statuses: Statuses | None = key(_SOME_STATUSES, None, min_length=1)
    at: PointerText | None = key(_A_POINTER, None)
    values: Values | None = key(_SOME_VALUES, None, min_length=1, max_length=1000)
    class_: Literal["throttled", "transient", "refused", "opted_out", "credentials"] = key(
        ", ".join([*list(CLASSES)[:-1], f"or {list(CLASSES)[-1]}"]), alias="class"
    )

    @checked(mode="after")
    def _values_are_somewhere(self) -> Self:
        if self.values is not None and self.at is None:
            raise refuse("an entry of errors has values, but no at that says where they are")
        return self

    def rule(self) -> ErrorRule:
        """Return the dispatcher's rule."""
        statuses = None if self.statuses is None else frozenset(self.statuses)
        values = None if self.values is None else typed(self.values)
        return ErrorRule(Match(statuses, self.at, values), CLASSES[self.class_])


class Basic(BaseModel):
    """A user and a password."""

    model_config = STRICT

    user: str = key("a text without ':'", pattern="[^:]*")
    password: SecretStr | None = key("a text", None, strict=False)
    password_file: SecretFile | None = key("the path of a file that can be read and holds a password", None)

    @checked(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise refuse("auth.basic should have either password or password_file")
        return self


class OAuth2(BaseModel):
    """Client credentials, for which there are access tokens."""

    model_config = STRICT

    url: EndpointUrl = key("an http:// or https:// address with a host and without user or password")
    client_id: str = key("a text", min_length=1)
    client_secret: SecretStr | None = key("a text", None, strict=False)
    client_secret_file: SecretFile | None = key("the path of a file that can be read and holds one line of text", None)
    scope: str = key("a text", "")

    @checked(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret is None) == (self.client_secret_file is None):
            raise refuse("auth.oauth2 should have either client_secret or client_secret_file")
        return self

    def grant(self) -> TokenGrant:
        """Return what tokens are fetched with."""
        secret = self.client_secret or self.client_secret_file
        assert secret is not None
        return TokenGrant(self.url, self.client_id, secret.get_secret_value(), self.scope)


class Auth(BaseModel):
    """How requests show who sends them; nothing at all means a bearer token."""

    model_config = STRICT

    basic: Basic | None = key("a table with user and password", None)
    oauth2: OAuth2 | None = key("a table with url, client_id and client_secret", None)
    header: str | None = key("the name of a header", None)
    value: str | None = key("a text", None)
    value_file: SecretFile | None = key("the path of a file that can be read and holds one line of text", None)

    @checked(mode="after")
    def _one_way(self) -> Self:
        if sum(one is not None for one in (self.basic, self.oauth2, self.header)) > 1:
            raise refuse("auth has more than one of basic, header and oauth2")
        if (self.header is None) != (self.value is None and self.value_file is None) or (
            self.value and self.value_file
        ):
            raise refuse("auth should have a header with either value or value_file")
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


class Batch(BaseModel):
    """How one request carries many messages."""

    model_config = STRICT

    max: int = key(f"a whole number from 1 to {MOST}", ge=1, le=MOST)
    items: PointerText = key(_A_POINTER, Pointer())
    results: PointerText | None = key(_A_POINTER, None)
    id: PointerText | None = key(_A_POINTER, None)

    @checked(mode="after")
    def _an_id_is_in_a_result(self) -> Self:
        if self.id is not None and self.results is None:
            raise refuse("batch has id, but no results that say where the results of messages are")
        return self

    def text(self) -> BatchText:
        """Return the description's batch."""
        return BatchText(self.max, self.items, self.results, self.id)


def _masked(value: str) -> str:
    """Return a constant without what is secret in it."""
    return f"Basic {MASK}" if value.startswith("Basic ") else MASK


def _auth(value: object) -> object:
    return {} if value == "bearer" else value


class Entry(BaseModel):
    """All keys of an endpoint."""

    model_config = STRICT

    url: EndpointUrl = key("an http:// or https:// address with a host and without user or password")
    token: Token | None = key("a token of printable ASCII characters without spaces", None, strict=False)
    token_file: Annotated[SecretStr, BeforeValidator(token_in_file)] | None = key(
        "the path of a file that can be read and holds a token of printable ASCII characters without spaces", None
    )
    timeout: float = key("a number of seconds from 0.05 to 300", 10.0, ge=0.05, le=300)
    connect_timeout: float = key("a number of seconds from 0.05 to 300", 3.0, ge=0.05, le=300)
    ca_file: Annotated[str, AfterValidator(readable_path)] | None = key("the path of a PEM file that can be read", None)
    transport: Transport = key("fast or httpx", "fast")
    max_rate: Annotated[float, AfterValidator(rate)] = key(RATES, 0.0)
    max_per_day: int = key(f"a whole number from 0, for no limit, to {MOST_PER_DAY}", 0, ge=0, le=MOST_PER_DAY)
    max_per_day_timezone: Annotated[str, AfterValidator(time_zone)] = key(
        "the IANA name of a time zone, such as Europe/Moscow", ""
    )
    max_concurrency: int = key("a whole number from 1 to 100000", 1024, ge=1, le=100_000)
    success: Success = key("a table with statuses, body, field, at and values", Success())
    method: Literal["POST", "PUT", "PATCH", "GET"] = key("POST, PUT, PATCH or GET", "POST")
    auth: Annotated[Auth, BeforeValidator(_auth)] = key(
        "bearer, or a table with basic, oauth2, or header and value", Auth()
    )
    secrets: Annotated[dict[str, SecretStr], BeforeValidator(secret_table)] = key(
        "a table of texts by name; NAME_file is the path of a file that can be read and holds NAME", {}
    )
    headers: dict[str, str] = key("a table of texts", {})
    query: Table = key("a table of texts, numbers, true and false, or lists of these", {})
    json_: Annotated[Any, BeforeValidator(json_value)] = key(
        "a table or a list, without dates and times", None, alias="json"
    )
    form: Table | None = key("a table of texts, numbers, true and false, or lists of these", None)
    batch: Batch | None = key("a table with max, items, results and id", None)
    requires: list[Annotated[str, Field(pattern=r"^\w{1,64}$")]] = key("a list of names of attributes", [])
    errors: list[ErrorEntry] = key("a list of tables with class, and statuses, at or values", [], max_length=100)
    retry_after: SourceText | None = key("a JSON pointer, or header:NAME", None)
    provider_id: SourceText | None = key("a JSON pointer, or header:NAME", None)
    receipts: Receipts | None = key("a table with parse, status, delivered and verify", None)
    inbound: Inbound | None = key("a table with parse, from, text and verify", None)

    @checked(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise refuse("token and token_file are both given, one should go")
        return self

    @checked(mode="after")
    def _requests_can_be_made(self, info: ValidationInfo) -> Self:
        try:
            self.request("", reading_of(info).receipts_url)
        except DescriptionError as error:
            raise refuse(f"{error.key} {error}") from None
        return self

    def endpoint(self, name: str, receipts_url: str | None = None, masked: bool = False) -> Endpoint:
        """Return the dispatcher's endpoint; `masked` without its secrets, to be shown."""
        token = self.token_file or self.token
        if masked and (token or self.auth.oauth2):
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
            max_response_bytes=_RESPONSE_BYTES + (_RESULT_BYTES * self.batch.max if self.batch else 0),
            ca_file=self.ca_file,
            max_rate=self.max_rate,
            day_limit=day_limit(self.max_per_day, self.max_per_day_timezone),
            success=rule or DEFAULT_SUCCESS,
            request=self.request(name, receipts_url, masked),
            answers=self._answers() if further else None,
            awaits_token=self.auth.oauth2 is not None and not masked,
            secrets=self._known_secrets(),
        )

    def _known_secrets(self) -> tuple[str, ...]:
        """Return what requests hold and no excerpt of an answer may show, but for the token."""
        auth = [one.removeprefix("Basic ") for one in self.auth.headers()[1].values()]
        if self.auth.header is not None and self.auth.value is not None and "{" not in self.auth.value:
            auth.append(self.auth.value)
        if self.auth.basic is not None and (password := self.auth.basic.password or self.auth.basic.password_file):
            auth.append(password.get_secret_value())
        path = self.receipts.verify.path_secret if self.receipts is not None else ""
        return (*auth, *(one.get_secret_value() for one in self.secrets.values()), *([path] if path else []))

    def _answers(self) -> AnswerRules:
        errors = tuple(one.rule() for one in self.errors)
        return AnswerRules(self.success.match(), errors, self.retry_after, self.provider_id)

    def request(self, name: str, receipts_url: str | None, masked: bool = False) -> RequestForm | None:
        """Return the form of the requests; None for those of the delivery protocol. Raise DescriptionError."""
        given = self.model_fields_set & {
            "method",
            "auth",
            "headers",
            "query",
            "json_",
            "form",
            "requires",
            "secrets",
            "batch",
        }
        if not given and "{" not in self.url:
            return None
        headers, secrets = self.auth.headers()
        secrets |= {f"secret.{name}": secret.get_secret_value() for name, secret in self.secrets.items()}
        if masked:
            secrets = {one: _masked(value) for one, value in secrets.items()}
        constants: dict[str, str | None] = {**secrets}
        if self.receipts is not None:
            secret = self.receipts.verify.path_secret
            constants["receipt_url"] = _receipt_url(name, receipts_url, MASK if masked and secret else secret)
        return compile_request(
            RequestText(
                url=self.url,
                method=self.method,
                headers=self.headers | headers,
                query=self.query,
                json=self.json_,
                form=self.form,
                requires=self.requires,
                batch=self.batch.text() if self.batch else None,
                constants=constants,
            )
        )


def _receipt_url(name: str, base: str | None, secret: str) -> str | None:
    """Return the address for a message's receipts but for its id; None where the listener's is not known."""
    if base is None:
        return None
    path = "/".join(quote(part, safe="*") for part in ("receipts", name, secret) if part)
    return f"{base.rstrip('/')}/{path}?message="


def keys_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the keys of a table as they stand in the file, with their fields."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


TABLES: Mapping[tuple[type[BaseModel], str], type[BaseModel]] = {
    (Entry, "success"): Success,
    (Entry, "errors"): ErrorEntry,
    (Entry, "auth"): Auth,
    (Auth, "basic"): Basic,
    (Auth, "oauth2"): OAuth2,
    (Entry, "batch"): Batch,
    (Entry, "receipts"): Receipts,
    (Receipts, "verify"): Verify,
    (Entry, "inbound"): Inbound,
    (Inbound, "verify"): Verify,
    (Verify, "basic"): Login,
    (Verify, "hmac-sha256"): Signature,
}
"""The models of tables within tables."""
