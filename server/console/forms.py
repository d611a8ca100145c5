"""Forms: every change goes through `change`, which checks where it comes from before it reads on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import grpc
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from server.console.guard import FORM_FIELD, Forged, check_origin, check_token
from server.console.visit import Console, Visit, begin_visit

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

    def whole(self, name: str, otherwise: int = 0) -> int:
        """Return a whole number; note an error for what is none."""
        text = self.get(name).replace(" ", "").replace("\u00a0", "")
        try:
            return int(text) if text else otherwise
        except ValueError:
            self.errors[name] = "must be a whole number"
            return otherwise

    def decimal(self, name: str) -> float:
        """Return a number, 0 for none; note an error for what is none."""
        try:
            return float(self.get(name).replace(",", ".") or 0)
        except ValueError:
            self.errors[name] = "must be a number"
            return 0.0

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


def place(error: MailingError, form: Form, prefix: str, names: Mapping[str, str]) -> None:
    """Put what the API says beside the fields of a form, which are called as in the API or as `names` say.

    Raise the error if it is not about the request.
    """
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        raise error
    for path, sentence in error.fields:
        name = path.removeprefix(prefix).removeprefix("filter.").split(".")[0].split("[")[0]
        name = names.get(name, name)
        form.errors[name] = f"{form.errors[name]}; {sentence}" if name in form.errors else sentence
    if not error.fields:
        form.errors[""] = error.message
