"""Forms: every change goes through `change`, which checks where it comes from before it reads on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from server.console.guard import FORM_FIELD, Forged, check_origin, check_token
from server.console.visit import Console, Visit, begin_visit

T = TypeVar("T")

MAX_FIELDS = 400


@dataclass(slots=True)
class Form:
    """The fields of a form as they were sent, and a sentence for each that is wrong."""

    data: FormData
    errors: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """Return a text without the space around it; '' without one."""
        value = self.data.get(name)
        return value.strip() if isinstance(value, str) else ""

    def all(self, name: str) -> list[str]:
        """Return all values of a field that are not empty."""
        return [one.strip() for one in self.data.getlist(name) if isinstance(one, str) and one.strip()]

    def words(self, name: str) -> list[str]:
        """Return the words of a field, separated by commas, spaces or lines."""
        return self.get(name).replace(",", " ").split()

    def file(self, name: str) -> UploadFile | None:
        """Return an uploaded file."""
        value = self.data.get(name)
        return value if isinstance(value, UploadFile) and value.filename else None

    def read(self, name: str, reader: Callable[[str], T]) -> T | None:
        """Return what `reader` makes of a field, None for an empty one; note the sentence of its ValueError."""
        try:
            return reader(self.get(name)) if self.get(name) else None
        except (ValueError, OverflowError) as error:
            self.errors[name] = str(error)
            return None

    def whole(self, name: str, bits: int = 32) -> int:
        """Return a whole number, 0 for none; note an error for what is none, and for one of more bits."""
        text = self.get(name).replace(" ", "").replace("\u00a0", "")
        try:
            number = int(text or 0)
        except ValueError:
            self.errors[name] = "must be a whole number"
            return 0
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            self.errors[name] = "is out of range"
            return 0
        return number

    def decimal(self, name: str) -> float:
        """Return a number, 0 for none; note an error for what is none."""
        try:
            return float(self.get(name).replace(",", ".") or 0)
        except ValueError:
            self.errors[name] = "must be a number"
            return 0.0

    @property
    def texts(self) -> dict[str, str]:
        """The fields as they were typed, to be shown again."""
        return {name: value for name, value in self.data.items() if isinstance(value, str)}

    def note(self, name: str, sentence: str) -> None:
        """Add a sentence about a field; '' is the form as a whole."""
        self.errors[name] = f"{self.errors[name]}; {sentence}" if name in self.errors else sentence

    def pairs(self, name: str) -> dict[str, str]:
        """Return the lines `name=value` of a field; note an error for a line that is none."""
        found = {}
        for text in self.get(name).splitlines():
            key, equals, value = text.partition("=")
            if text.strip() and not equals:
                self.errors[name] = f"{text.strip()[:40]!r} should be NAME=VALUE"
            elif text.strip():
                found[key.strip()] = value.strip()
        return found


Change = Callable[[Visit, Form], Awaitable[Response]]


def change(console: Console, path: str, handler: Change) -> Route:
    """Return the route of a change. Without the form's token, or from another site, it is refused."""

    async def checked(request: Request) -> Response:
        form = await checked_form(console, request)
        try:
            visit = await begin_visit(console, request)
            answer = await handler(visit, form)
            console.topics.changed(visit.who.digest)
            return answer
        finally:
            await form.data.close()

    return Route(path, checked, methods=["POST"])


async def checked_form(console: Console, request: Request) -> Form:
    """Return the form of a request that comes from a page of ours. Raise Forged."""
    check_origin(request)
    if console.form_cookie not in request.cookies:
        raise Forged
    data = await request.form(max_fields=MAX_FIELDS, max_files=1, max_part_size=1 << 20)
    check_token(data.get(FORM_FIELD), request, console.form_cookie)
    return Form(data)


_NAMED = {
    "CALENDAR_NOT_FOUND": "holidays",
    "ENDPOINT_NOT_FOUND": "endpoint",
    "MAILING_ENDED": "end",
    "PHONE_TAKEN": "phone",
    "SEGMENT_NAME_TAKEN": "name",
    "SEGMENT_NOT_FOUND": "segment",
}
"""The fields that errors are about which do not name one, by their reasons."""


def place(error: MailingError, form: Form, prefix: str, names: Mapping[str, str]) -> None:
    """Put what the API says beside the fields of a form, which are called as in the API or as `names` say.

    What is about no field of the form stands under ''. Raise the error if it is not about the request.
    """
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        raise error
    if not error.fields:
        form.note(_known(_NAMED.get(error.reason, ""), form), error.message)
    for path, sentence in error.fields:
        if error.reason == "INVALID_FILTER":  # the message has the text and a caret under the place as well
            sentence = error.message.partition(": ")[2] or sentence
        name = _named(path.removeprefix(prefix), form, names)
        number = re.fullmatch(r"\w+\[(\d+)\].*", path.removeprefix(prefix).removeprefix("mailing."))
        at = f"no. {int(number[1]) + 1}: " if number and name else "" if name else f"{path}: "
        form.note(name, f"{at}{sentence}")


def _named(path: str, form: Form, names: Mapping[str, str]) -> str:
    """Return the field of a form that a path of the API is about."""
    if path in names:
        return names[path]
    path = path.removeprefix("mailing.")
    if path.startswith("filter.") and form.get("filter_text"):
        return "filter_text"
    head = re.split(r"[.\[]", path.removeprefix("filter."), maxsplit=1)[0]
    return _known(names.get(head, head), form)


def _known(name: str, form: Form) -> str:
    """Return the name of a field if the form has it: a filter may stand in it as text."""
    if name == "segment" and form.get("filter_text"):
        return "filter_text"
    return name if name in form.data else ""
