"""The endpoints of the environment and of the endpoints file, and their senders.

The endpoint of the environment is called `default`, and mailings without an endpoint use it; the
file may define one of that name instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dispatcher.delivery.batching import BatchingSender
from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.traced_sender import TracedSender
from dispatcher.model.endpoints import DEFAULT_ENDPOINT, Endpoint
from dispatcher.model.quotas import day_limit
from dispatcher.ports import Sender
from dispatcher.tracing import TraceHeaders, Tracer
from server.config import ConfigError, Settings, endpoint_token_in
from server.config.types import ConfiguredEndpoint
from server.endpoints.endpoints_file import read_endpoints

log = logging.getLogger(__name__)

Endpoints = Sequence[tuple[Endpoint, Sender]]
"""Endpoints and their senders."""


def configured_endpoints(settings: Settings) -> list[ConfiguredEndpoint]:
    """Return all configured endpoints. Raise ConfigError for an invalid file."""
    found = [_of_environment(settings, settings.endpoint_url)] if settings.endpoint_url else []
    if settings.endpoints_file is not None:
        named = read_endpoints(settings.endpoints_file, settings.receipts_url)
        _check_receipts(settings, named)
        if found and any(one.endpoint.name == DEFAULT_ENDPOINT for one in named):
            sentence = f"{DEFAULT_ENDPOINT} is the endpoint of MAILING_ENDPOINT_URL, which is set, too: one should go."
            raise ConfigError([f"{settings.endpoints_file}: endpoint {sentence}"])
        found += named
    return [one._replace(endpoint=_bounded(one)) for one in found]


def _check_receipts(settings: Settings, named: Sequence[ConfiguredEndpoint]) -> None:
    """Raise ConfigError for endpoints whose receipts or inbound messages nobody would take, or could verify."""
    problems = []
    sources = [(one, key, source) for one in named for key in ("receipts", "inbound") if (source := getattr(one, key))]
    for one, key, source in sources:
        where = f"{one.source}: endpoint {one.endpoint.name}: {key}"
        if settings.receipts_listen == "off" and settings.receipts_url is None:
            problems.append(
                f"{where} is configured, but MAILING_RECEIPTS_LISTEN is off; where another replica listens, "
                "MAILING_RECEIPTS_URL says so."
            )
        elif source.needs_url and settings.receipts_url is None:
            problems.append(f"{where} is signed together with its address: MAILING_RECEIPTS_URL should be set.")
    if problems:
        raise ConfigError(problems)


def _of_environment(settings: Settings, url: str) -> ConfiguredEndpoint:
    file = settings.endpoint_token_file
    endpoint = Endpoint(
        name=DEFAULT_ENDPOINT,
        url=url,
        token=settings.endpoint_token.get_secret_value(),
        total_timeout=settings.endpoint_timeout,
        connect_timeout=min(settings.endpoint_connect_timeout, settings.endpoint_timeout),
        max_concurrency=settings.endpoint_max_concurrency,
        ca_file=str(settings.endpoint_ca_file) if settings.endpoint_ca_file else None,
        day_limit=day_limit(settings.endpoint_max_per_day, settings.endpoint_max_per_day_timezone),
    )
    configured = ConfiguredEndpoint(endpoint, settings.endpoint_transport, "MAILING_ENDPOINT_URL")
    if file is None:
        return configured
    return configured._replace(secret_files=(file,), reread=partial(_with_token_of, file, configured))


def _with_token_of(file: Path, configured: ConfiguredEndpoint) -> ConfiguredEndpoint:
    """Return an endpoint with the token that a file holds now. Raise ValueError."""
    endpoint = replace(configured.endpoint, token=endpoint_token_in(file))
    return configured._replace(
        endpoint=endpoint, secret_files=(file,), reread=partial(_with_token_of, file, configured)
    )


def _bounded(configured: ConfiguredEndpoint) -> Endpoint:
    """Bound the concurrency by the maximum connections of httpx.

    A request must not wait inside a sender after it was checked to be in time.
    """
    endpoint = configured.endpoint
    if configured.transport == "fast":
        return endpoint
    from dispatcher.delivery.httpx_sender import MAX_CONNECTIONS  # loaded only where it is used

    return replace(endpoint, max_concurrency=min(endpoint.max_concurrency, MAX_CONNECTIONS))


def make_sender(configured: ConfiguredEndpoint, tracer: Tracer | None = None) -> Sender:
    """Return a sender for the endpoint. Raise ValueError if the endpoint cannot be used."""
    sender = _transport(configured)(configured.endpoint, tracer.headers if tracer else None)
    if configured.endpoint.request and configured.endpoint.request.batch:
        sender = BatchingSender(sender, configured.endpoint)
    return TracedSender(sender, configured.endpoint.name, tracer) if tracer else sender


def _transport(configured: ConfiguredEndpoint) -> Callable[[Endpoint, TraceHeaders | None], Sender]:
    if configured.transport == "fast":
        return FastSender
    from dispatcher.delivery.httpx_sender import HttpxSender  # loaded only where it is used

    return HttpxSender


def make_endpoints(configured: Sequence[ConfiguredEndpoint], tracer: Tracer | None = None) -> Endpoints:
    """Return the endpoints with a sender for each, in their order.

    Call it in the running loop. Raise ConfigError for endpoints that cannot be used.
    """
    made, problems = list[tuple[Endpoint, Sender]](), list[str]()
    for one in configured:
        try:
            made.append((one.endpoint, make_sender(one, tracer)))
        except ValueError as error:
            problems.append(f"The endpoint of {one.source} cannot be used: {error}.")
    if problems:
        raise ConfigError(problems)
    if not made:
        log.warning("nothing will be delivered: neither MAILING_ENDPOINT_URL nor MAILING_ENDPOINTS_FILE is set")
    return made
