"""The keys of an endpoint for what the gateway sends: receipts, messages of clients, and how it shows who it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, SecretStr, StringConstraints
from pydantic import model_validator as checked

from dispatcher.model.answers import Pointer, Source
from server.domain import signatures
from server.domain.inbound import InboundRules, words_of
from server.domain.receipts import Items, Receipt, ReceiptRules
from server.domain.signatures import Verifier
from server.endpoints.entry_types import STRICT, SecretFile, Values, key, refuse

_WORDS = "a list of texts, numbers, true and false"
_A_PLACE = "the name of a field, a JSON pointer, or header:NAME"
_A_SECRET = "a text"  # noqa: S105
_WAYS = "one of path, bearer, basic, hmac-sha256, twilio, mailgun, sendgrid and standard-webhooks"
_A_SECRET_FILE = "the path of a file that can be read and holds one line of text"  # noqa: S105


def place(value: object) -> Source:
    """Return where a report says something: a field's name is short for its pointer."""
    if not isinstance(value, str) or not value:
        raise ValueError
    if value.startswith(("/", "header:")):
        return Source.parse(value)
    return Source(Pointer((value,)))


def items_of(value: object) -> Items:
    """Return where the reports of a body are."""
    if not isinstance(value, str):
        raise ValueError
    return Items(Pointer.parse(value).tokens)


Place = Annotated[Any, BeforeValidator(place)]


class Login(BaseModel):
    """A user and password that the gateway sends."""

    model_config = STRICT

    user: str = key("a text without ':'", pattern="^[^:]*$")
    password: SecretStr | None = key(_A_SECRET, None, strict=False)
    password_file: SecretFile | None = key(_A_SECRET_FILE, None)

    @checked(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise refuse("verify.basic should have either password or password_file")
        return self

    def verifier(self) -> Verifier:
        """Return what checks them."""
        password = self.password or self.password_file
        assert password is not None
        return signatures.basic(self.user, password.get_secret_value())


class Signature(BaseModel):
    """An HMAC-SHA256 of the body in a header."""

    model_config = STRICT

    header: str = key("the name of a header", min_length=1)
    secret: SecretStr | None = key(_A_SECRET, None, strict=False)
    secret_file: SecretFile | None = key(_A_SECRET_FILE, None)
    prefix: str = key("a text", "")
    encoding: Literal["hex", "base64"] = key("hex or base64", "hex")

    @checked(mode="after")
    def _one_secret(self) -> Self:
        if (self.secret is None) == (self.secret_file is None):
            raise refuse("verify.hmac-sha256 should have either secret or secret_file")
        return self

    def verifier(self) -> Verifier:
        """Return what checks it."""
        secret = self.secret or self.secret_file
        assert secret is not None
        return signatures.hmac_sha256(self.header.lower(), secret.get_secret_value(), self.prefix, self.encoding)


class Verify(BaseModel):
    """How a request shows that it comes from the gateway: exactly one way."""

    model_config = STRICT

    path: SecretStr | None = key(_A_SECRET, None, strict=False)
    path_file: SecretFile | None = key(_A_SECRET_FILE, None)
    bearer: SecretStr | None = key(_A_SECRET, None, strict=False)
    bearer_file: SecretFile | None = key(_A_SECRET_FILE, None)
    basic: Login | None = key("a table with user and password", None)
    hmac: Signature | None = key("a table with header and secret", None, alias="hmac-sha256")
    twilio: SecretStr | None = key(_A_SECRET, None, strict=False)
    twilio_file: SecretFile | None = key(_A_SECRET_FILE, None)
    mailgun: SecretStr | None = key(_A_SECRET, None, strict=False)
    mailgun_file: SecretFile | None = key(_A_SECRET_FILE, None)
    sendgrid: str | None = key("the verification key of the account's event webhook", None)
    webhooks: SecretStr | None = key(_A_SECRET, None, strict=False, alias="standard-webhooks")
    webhooks_file: SecretFile | None = key(_A_SECRET_FILE, None, alias="standard-webhooks_file")

    @checked(mode="after")
    def _one_way(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise refuse(f"verify should have exactly {_WAYS}")
        for name, given in (("standard-webhooks", self.webhooks or self.webhooks_file), ("sendgrid", self.sendgrid)):
            try:
                if given:
                    self.verifier()
            except ValueError as error:
                raise refuse(f"verify.{name} {error}") from None
        return self

    @property
    def path_secret(self) -> str:
        """The last part of the path, '' where another way is used."""
        secret = self.path or self.path_file
        return secret.get_secret_value() if secret else ""

    @property
    def needs_url(self) -> bool:
        """Whether the listener's public address is part of what is signed."""
        return bool(self.twilio or self.twilio_file)

    def verifier(self) -> Verifier:
        """Return what checks a request."""
        if self.basic is not None:
            return self.basic.verifier()
        if self.hmac is not None:
            return self.hmac.verifier()
        if secret := self.bearer or self.bearer_file:
            return signatures.by_header("authorization", f"Bearer {secret.get_secret_value()}")
        if secret := self.twilio or self.twilio_file:
            return signatures.twilio(secret.get_secret_value())
        if secret := self.mailgun or self.mailgun_file:
            return signatures.mailgun(secret.get_secret_value())
        if self.sendgrid:
            return signatures.sendgrid(self.sendgrid)
        if secret := self.webhooks or self.webhooks_file:
            return signatures.standard_webhooks(secret.get_secret_value().split())
        return signatures.by_path(self.path_secret)


class Receipts(BaseModel):
    """How the gateway reports what became of messages."""

    model_config = STRICT

    parse: Literal["form", "json", "query"] = key("form, json or query")
    items: Annotated[Any, BeforeValidator(items_of)] | None = key(
        "a JSON pointer, in which * stands for every element", None
    )
    id: Place | None = key(_A_PLACE, None)
    status: Place = key(_A_PLACE)
    sent: Values = key(_WORDS, [])
    delivered: Values = key(_WORDS, min_length=1)
    failed: Values = key(_WORDS, [])
    read: Values = key(_WORDS, [])
    code: Place | None = key(_A_PLACE, None)
    opted_out: Values = key(_WORDS, [])
    verify: Verify = key(f"a table with {_WAYS}")

    @checked(mode="after")
    def _items_are_in_json(self) -> Self:
        if self.items is not None and self.parse != "json":
            raise refuse("receipts.items leads into a body of JSON, but parse is another")
        if self.opted_out and self.code is None:
            raise refuse("receipts.opted_out has codes, but code does not say where they are")
        return self

    def rules(self) -> ReceiptRules:
        """Return how reports are read."""
        meanings = [
            (Receipt.SENT, self.sent),
            (Receipt.RECEIVED, self.delivered),
            (Receipt.UNDELIVERED, self.failed),
            (Receipt.READ, self.read),
        ]
        return ReceiptRules(
            parse=self.parse,
            statuses={_word(value): receipt for receipt, values in meanings for value in values},
            status=self.status,
            id=self.id,
            code=self.code,
            items=self.items,
            opted_out=frozenset(map(_word, self.opted_out)),
        )


class Inbound(BaseModel):
    """How the gateway passes on what clients write."""

    model_config = STRICT

    parse: Literal["form", "json", "query"] = key("form, json or query")
    items: Annotated[Any, BeforeValidator(items_of)] | None = key(
        "a JSON pointer, in which * stands for every element", None
    )
    sender: Place = key(_A_PLACE, alias="from")
    text: Place = key(_A_PLACE)
    stop: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = key("a list of words", [])
    start: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = key("a list of words", [])
    verify: Verify = key(f"a table with {_WAYS}")

    @checked(mode="after")
    def _items_are_in_json(self) -> Self:
        if self.items is not None and self.parse != "json":
            raise refuse("inbound.items leads into a body of JSON, but parse is another")
        return self

    def rules(self) -> InboundRules:
        """Return how messages are read."""
        return InboundRules(self.parse, self.sender, self.text, words_of(self.stop, self.start), self.items)


def _word(value: object) -> str:
    """Return a value as reports have it once they are read."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
