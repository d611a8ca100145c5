"""Live pages: a page is drawn once, and then the parts of it that change are sent as server-sent events.

A view says what is read and which fragments are drawn from it. The same fragments make the page and its updates.
What several browsers see alike is drawn once; a browser gets at most four updates a second, each of them the
newest state and nothing that it has already.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import grpc
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mailing.errors import MailingError
from server.console import render
from server.console.topics import Read, Topic, Topics, first_values
from server.console.visit import Console, SignInNeeded, Visit, begin_visit

MIN_GAP = 0.25
"""Minimum seconds between two updates of one page."""

SEND_TIMEOUT = 20.0
"""Seconds after which a browser that does not read is let go."""

PING = 15

_DRAWN = 256


@dataclass(frozen=True, slots=True)
class View:
    """A page: its template, what it reads by name, its fragments, and what else the templates need.

    In the templates each read is its value, None while there is none; `problems` has the failures by the same names.
    """

    template: str
    reads: Mapping[str, Read]
    fragments: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


ViewOf = Callable[[Visit], Awaitable[View]]


class Drawings:
    """The latest fragments drawn, so that browsers that see the same share them."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[object, Mapping[str, str]] = OrderedDict()

    def of(self, visit: Visit, view: View, topics: Mapping[str, Topic]) -> Mapping[str, str]:
        """Return the fragments of a view as its topics are now, the notice about the service first."""
        states = tuple((read.key, topics[name].version) for name, read in view.reads.items())
        key = (view.template, states, visit.viewer, visit.may, repr(sorted(view.context.items())))
        found = self._drawn.get(key)
        if found is None:
            context = context_of(visit, view, topics)
            found = {name: render.fragment(visit.viewer, name, context) for name in ("notice", *view.fragments)}
            self._drawn[key] = found
            if len(self._drawn) > _DRAWN:
                self._drawn.popitem(last=False)
        return found


class Problems(dict[str, MailingError]):
    """The failures of reads by name; those that go well have None."""

    def __missing__(self, name: str) -> None:
        return None


def context_of(visit: Visit, view: View, topics: Mapping[str, Topic]) -> dict[str, Any]:
    """Return what the templates of a view see."""
    problems = Problems({name: topic.error for name, topic in topics.items() if topic.error})
    return {
        "may": visit.may,
        "problems": problems,
        "away": any(
            error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) for error in problems.values()
        ),
        **view.context,
        **{name: topic.value for name, topic in topics.items()},
    }


def live_page(console: Console, drawings: Drawings, path: str, view_of: ViewOf) -> list[Route]:
    """Return the routes of a page and of its updates, which are at the page's address with `/live` behind it."""

    async def page(request: Request) -> Response:
        visit = await begin_visit(console, request)
        return await show(visit, await view_of(visit))

    async def updates(request: Request) -> Response:
        try:
            visit = await begin_visit(console, request)
        except SignInNeeded:
            return PlainTextResponse("sign in\n", 401)
        view = await view_of(visit)
        events = _events(visit, view, drawings)
        return EventSourceResponse(events, ping=PING, send_timeout=SEND_TIMEOUT, sep="\n")

    return [Route(path, page), Route(f"{path.rstrip('/')}/live", updates)]


async def show(visit: Visit, view: View, **more: Any) -> Response:
    """Return the page of a view, with the first values of what it reads. Raise MailingError for what does not exist."""
    async with AsyncExitStack() as stack:
        topics = await _topics(stack, visit.console.topics, view)
        await first_values(list(topics.values()))
        for topic in topics.values():
            if topic.error and topic.error.code is grpc.StatusCode.UNAUTHENTICATED:
                raise SignInNeeded
            if topic.error and topic.error.code is grpc.StatusCode.NOT_FOUND:
                raise topic.error
        context = context_of(visit, view, topics) | more
        live = f"{visit.request.url.path.rstrip('/')}/live" if view.fragments else ""
        query = visit.request.url.query
        parts = {name: render.fragment(visit.viewer, name, context) for name in ("notice", *view.fragments)}
        return visit.page(
            view.template, view.status, live=f"{live}?{query}" if live and query else live, part=parts, **context
        )


async def _topics(stack: AsyncExitStack, topics: Topics, view: View) -> dict[str, Topic]:
    return {name: await stack.enter_async_context(topics.reading(read)) for name, read in view.reads.items()}


async def _events(visit: Visit, view: View, drawings: Drawings) -> AsyncIterator[ServerSentEvent]:
    """Yield the fragments that changed, until the session ends or the browser goes."""
    changed, sent = asyncio.Event(), dict[str, bytes]()
    async with AsyncExitStack() as stack:
        topics = await _topics(stack, visit.console.topics, view)
        for topic in topics.values():
            topic.wake(changed)
            stack.callback(topic.forget, changed)
        while not any(_signed_out(topic.error) for topic in topics.values()):
            changed.clear()
            if all(topic.version for topic in topics.values()):
                fresh = _unsent(drawings.of(visit, view, topics), sent)
                if fresh:
                    yield ServerSentEvent(data=_partials(fresh), sep="\n")
            await asyncio.sleep(MIN_GAP)
            await changed.wait()


def _signed_out(error: MailingError | None) -> bool:
    return error is not None and error.code is grpc.StatusCode.UNAUTHENTICATED


def _unsent(fragments: Mapping[str, str], sent: dict[str, bytes]) -> dict[str, str]:
    """Return the fragments that differ from those sent, and remember these."""
    fresh = {}
    for name, text in fragments.items():
        digest = sha256(text.encode()).digest()
        if sent.get(name) != digest:
            sent[name], fresh[name] = digest, text
    return fresh


def _partials(fragments: Mapping[str, str]) -> str:
    return "\n".join(
        f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{text}</hx-partial>' for name, text in fragments.items()
    )
