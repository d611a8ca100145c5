"""The way of every call, in one place: its steps in their order, and the reason for each place.

1. The request id: everything after it is logged with the id, and every answer carries it.
2. The counting, outside of the errors, so that it counts the status which the caller gets.
3. The errors: whatever is raised inside becomes a status; the steps below reject a call by raising.
4. The span, inside of the errors, so that it sees the exception itself.
5. The identity, before the limits, which count per principal; of a stream again and again while it is open.
6. The limits, before anything is read: a call over a limit costs nothing more.
7. The reading, so that time and limits count from the first byte of a request, not from its last.
8. The decoding: a malformed request counts against its caller's limits like any other.
9. The handler; nothing lies between a stream's generator and its connection.

The order is a promise to callers and operators: whatever ends a call, its answer carries a request
id and a status of the error table, and the call is counted and logged. It is one function and not a
stack of interceptors because a tenth of a call's time went from one to the next.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.message import Message as ProtoMessage
from grpc.aio import AbortError
from prometheus_client import CollectorRegistry

from server.api.deadlines import Deadlines, Task, current_task
from server.api.handlers import Behaviour, Context, Continuation, Handler, behaviour_of, reading_itself
from server.api.interceptors.arrivals import Arrivals
from server.api.interceptors.credential_checks import CredentialChecks
from server.api.interceptors.decoding import Decoder, decoder
from server.api.interceptors.errors import CANCELLED_WHERE_LEFT, code_of_cancelled, end_with, refusal, stated_code
from server.api.interceptors.identity import Identity, needed_scope
from server.api.interceptors.limits import CallKind, CallLimiter, CallLimits, host_of, principal_of
from server.api.interceptors.metrics import CallMetrics, MethodMetrics
from server.api.interceptors.request_ids import begin_request, bind_subjects, log_end
from server.api.interceptors.writing import ResponseWriter
from server.api.permissions import Public
from server.auth import Authenticator
from server.domain.errors import BodyTooSlow, MalformedRequest, Unauthenticated
from server.domain.principals import Scope, set_source
from server.domain.turns import Turns
from server.observability.tracing import CallTracer

_LARGE = 64 << 10
"""Bytes of a response that takes a place until it is sent."""

_PATIENCE = 5.0
"""Seconds that it waits for one."""

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class _Route:
    """What is known of a method before it is called."""

    method: str
    behaviour: Behaviour
    decode: Decoder
    needed: Scope | Public | None
    kind: CallKind
    counters: MethodMetrics
    takes_stream: bool
    streams: bool


_Serve = Callable[[_Route, Metadata, Context, str], Awaitable[Any]]

_NO_SPAN: AbstractContextManager[None] = nullcontext()

_metadata: ContextVar[Metadata] = ContextVar("metadata")
"""What came with the present call. gRPC reads it for interceptors; its context would do so once more."""


class CallChain(grpc.aio.ServerInterceptor):
    """Serves the calls of known methods; gRPC answers for unknown ones."""

    def __init__(
        self, registry: CollectorRegistry, authenticator: Authenticator, limits: CallLimits, tracer: CallTracer | None
    ) -> None:
        self._metrics = CallMetrics(registry)
        self._identity = Identity(authenticator)
        self._limiter = CallLimiter(limits)
        self._arrivals = Arrivals(limits.arrivals)
        self._writer = ResponseWriter(limits.unread)
        self._answers = Turns("large answers at once", 32, 8, waiting=32, waiting_share=8)
        self._credential_checks = CredentialChecks(limits.recheck)
        self._deadlines = Deadlines(limits.longest)
        self._tracer = tracer
        self._unread = limits.unread
        self._message_bytes = limits.message_bytes
        self._served: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return what serves the call's method, None if there is no such method."""
        method = handler_call_details.method
        _metadata.set(handler_call_details.invocation_metadata)
        served = self._served.get(method)
        if served is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            served = self._served[method] = self.served(handler, method)
        return served

    def served(self, handler: Handler, method: str) -> Handler:
        """Return what serves `method` in place of `handler`."""
        route = _Route(
            method=method,
            behaviour=behaviour_of(handler),
            decode=decoder(handler, method, self._message_bytes),
            needed=needed_scope(method),
            kind=self._limiter.kind_of(handler, method),
            counters=self._metrics.of(handler, method),
            takes_stream=handler.request_streaming,
            streams=handler.response_streaming,
        )
        one = self._collect if handler.request_streaming else self._answer
        serve: _Serve = self._stream if handler.response_streaming else one

        async def behaviour(_: object, context: Context) -> Any:
            return await self._call(route, context, serve)

        return reading_itself(handler, behaviour)

    async def _call(self, route: _Route, context: Context, serve: _Serve) -> Any:
        """Take steps 1 to 3."""
        metadata = _metadata.get()
        begin_request(context, metadata)
        route.counters.started()
        began, code, failure = perf_counter(), grpc.StatusCode.OK, ""
        try:
            try:
                with self._span(route, metadata), CANCELLED_WHERE_LEFT:
                    return await self._admitted(route, metadata, context, serve)
            except AbortError:
                code, failure = stated_code(context), "AbortError"
                raise
            except Exception as error:
                status = refusal(error, route.method)
                code, failure = status.code, type(error).__name__
            # Not within the handler: gRPC keeps its own exception, and with that ours, and with that the request.
            await end_with(context, status)
        except CancelledError as end:
            code, failure = code_of_cancelled(context), type(end).__name__
            raise
        finally:
            seconds = perf_counter() - began
            route.counters.ended(code, seconds)
            log_end(route.method, seconds, failure)

    def _span(self, route: _Route, metadata: Metadata) -> AbstractContextManager[object]:
        if self._tracer is None:
            return _NO_SPAN
        texts: Mapping[str, str] = {key: value for key, value in metadata if isinstance(value, str)}
        return self._tracer.call(route.method, texts)

    async def _admitted(self, route: _Route, metadata: Metadata, context: Context, serve: _Serve) -> Any:
        """Take steps 5 and 6."""
        peer = context.peer()
        try:
            self._identity.check(route.method, route.needed, metadata, context)
        except Unauthenticated:
            self._limiter.refused(host_of(peer))
            raise
        source = principal_of(peer)
        set_source(source)
        self._limiter.begin(source, route.kind)
        return await serve(route, metadata, context, source)

    async def _answer(self, route: _Route, metadata: Metadata, context: Context, source: str) -> Any:
        """Take steps 7 to 9 of unary methods."""
        task = current_task()
        self._end_when_sent(task, source, route.kind)
        self._deadlines.begin(task)
        try:
            return await self._response(route, context, source, task)
        except CancelledError:
            if self._deadlines.passed(task):
                raise route.kind.overdue(route.kind.longest) from None
            raise
        finally:
            self._deadlines.end(task)

    async def _collect(self, route: _Route, metadata: Metadata, context: Context, source: str) -> Any:
        """Take steps 7 to 9 of methods that take a stream and give one response."""
        task = current_task()
        self._end_when_sent(task, source, route.kind)
        async with _aged(route.kind):
            return await self._response(route, context, source, task)

    def _end_when_sent(self, task: Task, source: str, kind: CallKind) -> None:
        """Count the call's end when its response is on its way, or given up: its task ends then."""
        task.add_done_callback(lambda _: self._limiter.end(source, kind))

    async def _response(self, route: _Route, context: Context, source: str, task: Task) -> Any:
        response = await route.behaviour(await self._request(route, context, source), context)
        if isinstance(response, ProtoMessage) and response.ByteSize() > _LARGE:
            # Holds a place until its connection has taken it.
            await self._answers.take(source, _PATIENCE)
            task.add_done_callback(lambda _: self._answers.leave(source))
        route.counters.sent()
        return response

    async def _stream(self, route: _Route, metadata: Metadata, context: Context, source: str) -> None:
        """Take steps 7 to 9 of methods that stream their response."""
        try:
            check = self._identity.check_again(route.method, route.needed, metadata, context)
            async with _aged(route.kind):
                with self._credential_checks.during(check):
                    responses = route.behaviour(await self._request(route, context, source), context)
                    await self._writer.write_all(responses, context, route.counters.sent)
        finally:
            self._limiter.end(source, route.kind)

    async def _request(self, route: _Route, context: Context, source: str) -> Any:
        """Return the request: a message, or what yields the messages of a stream."""
        if route.takes_stream:
            return self._messages(route, context)
        request = route.decode(await self._arrivals.read(source, partial(_only_message, context, route.streams)))
        route.counters.received()
        bind_subjects(request)
        return request

    async def _messages(self, route: _Route, context: Context) -> AsyncGenerator[Any, None]:
        while True:
            try:
                async with asyncio.timeout(self._unread):
                    data = await context.read()
            except TimeoutError:
                raise BodyTooSlow from None
            if data is grpc.aio.EOF:
                return
            route.counters.received()
            yield route.decode(data)


@asynccontextmanager
async def _aged(kind: CallKind) -> AsyncIterator[None]:
    """End the block, which is a stream, at its age. Raise the kind's error then."""
    try:
        async with asyncio.timeout(longest := kind.duration()) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise kind.overdue(longest) from None
        raise


async def _only_message(context: Context, to_the_end: bool) -> Any:
    """Return a message of the caller, or EOF.

    With `to_the_end` wait until the caller has said that it is the only one: a stream may run for
    long, and what else its caller sends would be held as long.
    """
    data = await context.read()
    if to_the_end and data is not grpc.aio.EOF and await context.read() is not grpc.aio.EOF:
        raise MalformedRequest
    return data


def interceptor_chain(
    registry: CollectorRegistry, authenticator: Authenticator, limits: CallLimits, tracer: CallTracer | None = None
) -> Sequence[grpc.aio.ServerInterceptor]:
    """Return what every call passes through."""
    return (CallChain(registry, authenticator, limits, tracer),)
