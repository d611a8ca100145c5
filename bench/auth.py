"""What it costs to know who calls: unary calls without authentication, with a static token, with a JWT.

All servers are in this process, have the service's interceptors and answer at once, so that
nothing but the way to and from the handler is measured; calls to them take turns, one at a
time. `added_us` is the median of the differences to a server that asks nobody, made in the
same turn, both sides of the wire included: `ignored` is what a token costs that the server does
not look at. `known_us` is the service's own part, for a token it has seen; `first_us` that of
a token which comes for the first time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from prometheus_client import CollectorRegistry

from bench.measure import quantile, say
from mailing.v1.mailing_service_pb2 import GetMailingRequest, GetMailingResponse
from server.api import CallLimits
from server.api.interceptors.chain import interceptor_chain
from server.auth import Authenticator, KeySet
from server.auth.jwt_verifier import JwtVerifier
from server.auth.tokens_file import TokensFile, new_token, token_line

_SERVICE, _METHOD = "mailing.v1.MailingService", "GetMailing"
_ISSUER, _AUDIENCE = "https://issuer.example/", "https://mailing.example"
_WARM_UP = 200

Metadata = list[tuple[str, str]]
Call = Callable[[], Any]


async def _serve(stack: AsyncExitStack, authenticator: Authenticator, metadata: Metadata | None) -> Call:
    """Start a server and return a call to it."""

    async def get_mailing(request: GetMailingRequest, context: Any) -> GetMailingResponse:
        return GetMailingResponse()

    interceptors = interceptor_chain(CollectorRegistry(), authenticator, CallLimits(per_second=0))
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(
        get_mailing, GetMailingRequest.FromString, GetMailingResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
    unary: Any = channel.unary_unary(
        f"/{_SERVICE}/{_METHOD}", GetMailingRequest.SerializeToString, GetMailingResponse.FromString
    )
    return lambda: unary(GetMailingRequest(mailing_id=1), metadata=metadata)


def _bearer(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


class _Issuer:
    """An issuer with a key of either kind."""

    def __init__(self) -> None:
        self._rsa = rsa.generate_private_key(65537, 2048)
        self._ec = ec.generate_private_key(ec.SECP256R1())

    async def key_set(self) -> bytes:
        entries = [
            {**RSAAlgorithm.to_jwk(self._rsa.public_key(), as_dict=True), "kid": "RS256"},
            {**ECAlgorithm.to_jwk(self._ec.public_key(), as_dict=True), "kid": "ES256"},
        ]
        return json.dumps({"keys": entries}).encode()

    def token(self, algorithm: str, subject: str) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": subject, "iat": now, "exp": now + 3600}
        claims |= {"azp": "k" * 32, "scope": "mailings.read mailings.write"}
        key = self._rsa if algorithm == "RS256" else self._ec
        return jwt.encode(claims, key, algorithm, {"kid": algorithm})

    async def verifier(self) -> JwtVerifier:
        keys = KeySet(self.key_set)
        fetching = asyncio.create_task(keys.run())
        await keys.first()
        fetching.cancel()
        return JwtVerifier(_ISSUER, _AUDIENCE, keys)


async def _in_turn(calls: dict[str, Call], count: int) -> dict[str, list[float]]:
    """Make each call so many times, in turn; return how long each took, in microseconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_WARM_UP + count):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            if number >= _WARM_UP:
                took[name].append((time.perf_counter() - began) * 1e6)
    return took


def _each(work: Callable[[int], object], count: int) -> float:
    """Return the median time of the work for each number, in microseconds."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - began) * 1e6)
    return round(statistics.median(took), 1)


async def measure(count: int, folder: Path) -> dict[str, Any]:
    """Measure with `count` calls of each kind."""
    issuer, secret = _Issuer(), new_token()
    (folder / "tokens").write_text(token_line("bench", secret, ["all"]))
    verifier = await issuer.verifier()
    both = Authenticator(TokensFile(folder / "tokens"), verifier)
    good = _bearer(issuer.token("RS256", "bench"))
    fresh = {name: [issuer.token(name, str(number)) for number in range(300)] for name in ("RS256", "ES256")}

    def first(algorithm: str) -> float:
        made = fresh[algorithm]
        return _each(lambda n: verifier.verify(made[n], sha256(made[n].encode()).digest()), len(made))

    async with AsyncExitStack() as stack:
        calls = {
            "none": await _serve(stack, Authenticator(), None),
            "ignored": await _serve(stack, Authenticator(), good),
            "token": await _serve(stack, both, _bearer(secret)),
            "jwt": await _serve(stack, both, good),
        }
        say(f"{count:,} calls of each kind")
        took = await _in_turn(calls, count)
    pairs = {name: zip(took[name], took["none"], strict=True) for name in took if name != "none"}
    return {
        "bench": "auth",
        "calls": count,
        "jwt_bytes": len(good[0][1]),
        "call_us": {name: round(quantile(values, 0.5), 1) for name, values in took.items()},
        "added_us": {name: round(statistics.median(a - b for a, b in both), 1) for name, both in pairs.items()},
        "known_us": {
            "token": _each(lambda _: both.by_metadata(_bearer(secret)), 5000),
            "jwt": _each(lambda _: both.by_metadata(good), 5000),
        },
        "first_us": {"RS256": first("RS256"), "ES256": first("ES256")},
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench auth", description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="calls of each kind (default: 5000)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(options.calls, Path(folder)))
