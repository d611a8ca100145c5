"""Runs the scenario that every client library passes, and prints what it saw; tests/clients/README.md describes both.

`python conformance.py PLAN` uses the client for asyncio, `--threads` before the plan the synchronous one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.message_factory import GetMessageClass

import mailing
from mailing import MailingError, aio
from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
)
from mailing.v1.client_pb2 import Client
from mailing.v1.message_pb2 import Message

STUBS = {
    "ClientService": ("clients", client_service_pb2),
    "MailingService": ("mailings", mailing_service_pb2),
    "MessageService": ("messages", message_service_pb2),
    "DeliveryService": ("delivery", delivery_service_pb2),
    "AdminService": ("admin", admin_service_pb2),
}
SILENCE = 45.0
"""Seconds after which a silent peer has to be noticed."""


class SourceBrokeError(Exception):
    """The sequence of an import fails."""


class InThreads:
    """The synchronous client, or a part of it, behind the surface of the one for asyncio."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name in STUBS_OF_CLIENT or name == "resume_token":
            return found
        if name.startswith("watch_"):
            return lambda *args, **options: InThreads(found(*args, **options))
        return lambda *args, **options: asyncio.to_thread(found, *args, **options)

    async def __aiter__(self) -> AsyncIterator[Any]:
        steps, end = iter(self._wrapped), object()
        while (step := await asyncio.to_thread(next, steps, end)) is not end:
            yield step


STUBS_OF_CLIENT = {attribute for attribute, _ in STUBS.values()}


class Connection:
    """A client, and the token that its callback returns."""

    def __init__(self, step: Mapping[str, Any], threads: bool) -> None:
        self.token = step.get("token", "")
        token = (lambda: self.token) if step.get("callback") else self.token or None
        files = [step.get(name) for name in ("ca", "cert", "key")]
        credentials = mailing.tls_credentials(*files) if any(files) else None
        options = {"timeout": step["timeout"]} if "timeout" in step else {}
        kind: Any = mailing.MailingClient if threads else aio.MailingClient
        client = kind.connect(step["address"], token, credentials=credentials, **options)
        self.client: Any = InThreads(client) if threads else client
        self.streams: Callable[[Any], Any] = InThreads if threads else lambda call: call


class Runner:
    """Runs steps; `kinds` are what a step may do, by the key that says so."""

    def __init__(self, variables: dict[str, str], threads: bool) -> None:
        self._variables = variables
        self._threads = threads
        self._connections: dict[str, Connection] = {}
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "connect": self._connect,
            "call": self._call_step,
            "pages": self._pages,
            "import": self._import,
            "watch_mailing": self._watch_mailing,
            "watch_messages": self._watch_messages,
            "control": lambda step: self._control(step["control"]),
            "token": self._renew,
            "value": self._value,
        }

    async def run(self, raw: Any) -> dict[str, Any]:
        """Run a step and return the line to print."""
        step = self._filled(raw)
        kind = next(kind for key, kind in self._kinds.items() if key in step)
        try:
            result = await kind(step)
        except MailingError as error:
            result = {"error": described(error)}
        saved = {variable: str(at(result, path)) for variable, path in step.get("save", {}).items()}
        self._variables |= saved
        seen = {path: at(result, path) for path in step["expect"]}
        return {"step": step["name"], "seen": seen, "saved": saved, "error": at(result, "error")}

    def _filled(self, raw: Any) -> Any:
        text = json.dumps(raw)
        for name, value in self._variables.items():
            text = text.replace(f"${{{name}}}", json.dumps(value)[1:-1])
        return json.loads(text)

    def _on(self, step: Mapping[str, Any]) -> Connection:
        return self._connections[step.get("using", "main")]

    async def _connect(self, step: Mapping[str, Any]) -> Any:
        try:
            self._connections[step["connect"]] = Connection(step, self._threads)
        except ValueError as error:
            return invalid(error)
        return {}

    async def _renew(self, step: Mapping[str, Any]) -> Any:
        self._on(step).token = step["token"]
        return {}

    async def _call_step(self, step: Mapping[str, Any]) -> Any:
        if "each" not in step:
            return await call(self._on(step), step["call"], step["request"])
        results = []
        for one in step["each"]:
            request = json.loads(json.dumps(step["request"]).replace("${each}", str(one)))
            try:
                results.append(await call(self._on(step), step["call"], request))
            except MailingError as error:
                results.append({"error": described(error)})
        return {"results": results}

    async def _pages(self, step: Mapping[str, Any]) -> Any:
        items = pages = 0
        request = dict(step["request"])
        while True:
            page = await call(self._on(step), step["pages"], request)
            items, pages = items + len(page.get(step["items"], ())), pages + 1
            request["page_token"] = page.get("nextPageToken", "")
            if not request["page_token"]:
                return {"items": items, "pages": pages}

    async def _import(self, step: Mapping[str, Any]) -> Any:
        progress = [0]
        try:
            clients = rows(step["import"])
            response = await self._on(step).client.import_clients(clients, progress=progress.append)
        except SourceBrokeError:
            return {"error": {"source": True}}
        return document(response) | {"progress": progress[-1]}

    async def _watch_mailing(self, step: Mapping[str, Any]) -> Any:
        last = [state async for state in self._on(step).client.watch_mailing(int(step["watch_mailing"]))][-1]
        return {"last": document(last)}

    async def _watch_messages(self, step: Mapping[str, Any]) -> Any:
        asked, meanwhile, on = step["watch_messages"], step.get("meanwhile", {}), self._on(step)
        options = {name: asked[name] for name in ("from_start", "resume_token") if name in asked}
        watch, counts = on.client.watch_messages(int(asked["mailing_id"]), **options), Counts()
        try:
            async with asyncio.timeout(asked["within"]):
                async for change in watch:
                    if counts.add(change) and len(counts.seen) == meanwhile.get("after"):
                        on.token = meanwhile.get("token", on.token)
                        await self._control(meanwhile.get("control", ()))
                    if len(counts.seen) >= asked["until"]:
                        break
        except TimeoutError:
            pass
        token = watch.resume_token
        if not self._threads:
            await watch.close()
        return counts.result() | {"token": token}

    async def _control(self, commands: Iterable[Any]) -> Any:
        answer = None
        for command in commands:
            answer = await asyncio.to_thread(post, self._variables["control"], command)
        return answer

    async def _value(self, step: Mapping[str, Any]) -> Any:
        try:
            found = HELPERS[step["value"]](*step["of"])
        except ValueError as error:
            return invalid(error)
        return {"value": document(found) if isinstance(found, ProtoMessage) else found}


class Counts:
    """What a watch of messages yielded."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, int]] = set()
        self._latest: dict[int, int] = {}
        self._statuses: dict[str, int] = {}
        self._repeated = self._disordered = 0
        self._longest = 0.0
        self._at = monotonic()

    def add(self, change: Any) -> bool:
        """Count a change; return whether it is new."""
        now = monotonic()
        self._longest, self._at = max(self._longest, now - self._at), now
        key = (change.message_id, int(change.status), change.time.ToNanoseconds())
        if key in self.seen:
            self._repeated += 1
            return False
        self.seen.add(key)
        self._disordered += key[2] < self._latest.get(change.message_id, 0)
        self._latest[change.message_id] = key[2]
        name = Message.Status.Name(change.status).removeprefix("STATUS_")
        self._statuses[name] = self._statuses.get(name, 0) + 1
        return True

    def result(self) -> dict[str, Any]:
        """Return the counts by their names in the scenario."""
        return {
            "changes": len(self.seen),
            "repeated": self._repeated,
            "disordered": self._disordered,
            "statuses": self._statuses,
            "silence": "long" if self._longest > SILENCE else "short",
        }


async def call(on: Connection, name: str, request: Any) -> Any:
    """Make any call, by the descriptors of the generated code."""
    service, _, method = name.partition(".")
    attribute, file = STUBS[service]
    described_method: MethodDescriptor = file.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    message = ParseDict(request, GetMessageClass(described_method.input_type)())
    stub = getattr(getattr(on.client, attribute), method)
    if not described_method.server_streaming:
        return document(await on.client.call(stub, message))
    with mailing.mailing_errors():
        return {"responses": [document(one) async for one in on.streams(stub(message))]}


def rows(asked: Mapping[str, Any]) -> Iterator[Client]:
    """Yield the clients of an import."""
    for one in asked.get("clients", ()):
        yield ParseDict(one, Client())
    fill = asked.get("fill", {})
    attributes = {f"a{n}": "x" * fill["characters"] for n in range(fill.get("attributes", 0))}
    template = json.dumps(asked.get("client"))
    for row in range(asked.get("rows", 0)):
        if row == asked.get("breaks_after"):
            raise SourceBrokeError
        client = ParseDict(json.loads(template.replace("${row}", f"{row:07}")), Client())
        client.attributes.update(attributes)
        yield client


HELPERS: dict[str, Callable[..., Any]] = {
    "message_id": lambda *of: str(mailing.message_id(*map(int, of))),
    "mailing_of": lambda one: str(mailing.mailing_of(int(one))),
    "client_of": lambda one: str(mailing.client_of(int(one))),
    "window": mailing.new_window,
    "phone": mailing.new_phone,
    "moment": mailing.new_timestamp,
    "local_time": mailing.new_local_time,
}


def invalid(error: ValueError) -> dict[str, Any]:
    """Return what the library refuses without a call."""
    return {"error": {"invalid": True, "message": str(error)}}


def described(error: MailingError) -> dict[str, Any]:
    """Return an error in the words of the scenario."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "hint": error.message.partition(" (")[0],
        "fields": [one._asdict() for one in error.fields],
        "metadata": error.metadata,
        "transport": error.is_transport,
    }


def document(message: ProtoMessage) -> Any:
    """Return a message as protobuf's JSON."""
    return MessageToDict(message)


def at(found: Any, path: str) -> Any:
    """Return what stands at a path of a JSON value, None without it."""
    name, _, rest = path.partition(".")
    if not path:
        return found
    if name == "#" and isinstance(found, dict | list):
        return len(found)
    if isinstance(found, dict):
        return at(found[name], rest) if name in found else None
    if isinstance(found, list) and name == "*":
        return [at(one, rest) for one in found]
    if isinstance(found, list) and name.isdigit() and int(name) < len(found):
        return at(found[int(name)], rest)
    return None


def post(url: str, command: Any) -> Any:
    """Send a command to the test and return its answer."""
    request = Request(url, json.dumps(command).encode(), {"Content-Type": "application/json"})  # noqa: S310 - the test's
    with urlopen(request) as answer:  # noqa: S310
        return json.load(answer)


async def main(plan: dict[str, Any], threads: bool) -> None:
    """Run all steps."""
    runner = Runner(plan["variables"], threads)
    for step in plan["steps"]:
        print(json.dumps(await runner.run(step)), flush=True)


if __name__ == "__main__":
    *options, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        chosen = json.load(file)
    asyncio.run(main(chosen, threads="--threads" in options))
