"""Keys of an issuer: which are taken, when they are fetched, and what is kept when they cannot be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.auth.jwks import BadKeys, KeySet, KeyTiming, read_keys
from tests.support.issuer import ec_key, jwk, key_set, rsa_key

QUICK = KeyTiming(refresh=0.02, retry_first=0.01, retry_longest=0.02, cool_down=0.01)
SELDOM = KeyTiming(refresh=3600, retry_first=3600, cool_down=0.05)


class Fetches:
    """What fetches give: an answer, or an exception; and how many there were."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.count = 0
        self.most_at_once = 0
        self.held: asyncio.Event | None = None
        self._at_once = 0
        self._one_more = asyncio.Condition()

    async def __call__(self) -> bytes:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.held is not None:
                await self.held.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        finally:
            self._at_once -= 1
            async with self._one_more:
                self.count += 1
                self._one_more.notify_all()

    async def reach(self, count: int) -> None:
        """Return when so many fetches have ended."""
        async with asyncio.timeout(10), self._one_more:
            await self._one_more.wait_for(lambda: self.count >= count)


Running = Callable[[KeySet], Awaitable[None]]


@pytest.fixture
async def run() -> Any:
    """Run key sets until the test ends; return after their first fetch."""
    tasks = list[asyncio.Task[None]]()

    async def begin(keys: KeySet) -> None:
        tasks.append(asyncio.create_task(keys.run()))
        await keys.first()

    yield begin
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>sign in</html>",
        b"[]",
        b"null",
        b'{"keys": null}',
        b'{"keys": []}',
        b'{"keys": [7, "x", null, {}]}',
        b'{"keys": [{"kty": "RSA", "kid": "a"}]}',
        b'{"keys": [{"kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        b'{"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]}',
        b"[" * 100_000,
        json.dumps({"keys": [{"kty": "oct"}] * 101}).encode(),
    ],
)
def test_what_is_no_key_set_is_rejected(document: bytes) -> None:
    with pytest.raises(BadKeys):
        read_keys(document)


def test_only_public_keys_for_signatures_are_taken() -> None:
    entries = [
        jwk("rsa", rsa_key()),
        jwk("ec", ec_key()),
        jwk("rs512", rsa_key(), alg="RS512"),
        jwk("wrong-alg", rsa_key(), alg="ES256"),
        jwk("secret-alg", rsa_key(), alg="HS256"),
        jwk("enc", rsa_key(), use="enc"),
        jwk("short", rsa_key("short", 1024)),
        {name: value for name, value in jwk("x", rsa_key()).items() if name != "kid"},
    ]
    keys = read_keys(key_set(*entries))
    assert {name: key.algorithms for name, key in keys.items()} == {
        "rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
        "ec": {"ES256"},
        "rs512": {"RS512"},
    }


LIES: list[bytes | Exception] = [
    OSError("down"),
    TimeoutError(),
    b"<html>",
    b'{"keys": []}',
    b'{"keys": [{"kid": "rsa"}]}',
]


@pytest.mark.parametrize("lie", LIES, ids=["down", "slow", "html", "no keys", "bad key"])
async def test_known_keys_stay_whatever_later_fetches_give(run: Running, lie: bytes | Exception) -> None:
    fetches = Fetches(key_set(jwk("rsa", rsa_key())))
    keys = KeySet(fetches, QUICK)
    await run(keys)
    known = keys.get("rsa")
    assert known is not None
    fetches.answer = lie
    await fetches.reach(4)
    assert keys.get("rsa") is known
    fetches.answer = key_set(jwk("rsa", rsa_key()), jwk("new", ec_key()))
    await fetches.reach(fetches.count + 2)
    assert keys.get("new") is not None


async def test_keys_end_at_their_maximum_age_and_come_back_with_the_issuer(run: Running) -> None:
    """Fails when the age is not looked at."""
    now = 0.0
    fetches = Fetches(key_set(jwk("rsa", rsa_key())))
    keys = KeySet(fetches, KeyTiming(refresh=0.02, retry_longest=0.02, cool_down=0.01, max_age=100), lambda: now)
    await run(keys)
    good, fetches.answer = fetches.answer, OSError("down")
    await fetches.reach(fetches.count + 2)
    now = 99.9
    assert keys.get("rsa") is not None
    now = 100.0
    assert keys.get("rsa") is None
    fetches.answer = good
    await fetches.reach(fetches.count + 2)
    assert keys.get("rsa") is not None


async def test_an_unknown_key_causes_one_fetch_after_the_cool_down(run: Running) -> None:
    """Fails when asking does not wake the task, and when the pause is taken out."""
    fetches = Fetches(key_set(jwk("rsa", rsa_key())))
    keys = KeySet(fetches, SELDOM)
    await run(keys)
    loop = asyncio.get_running_loop()
    began = loop.time()
    fetches.answer = key_set(jwk("rsa", rsa_key()), jwk("new", ec_key()))
    assert keys.get("new") is None
    for count in range(1000):
        assert keys.get(f"unknown-{count}") is None
    await fetches.reach(2)
    assert loop.time() - began >= SELDOM.cool_down - 0.01
    await asyncio.sleep(0)
    assert keys.get("new") is not None
    assert fetches.count == 2
    assert fetches.most_at_once == 1


async def test_no_one_waits_while_a_fetch_does(run: Running) -> None:
    fetches = Fetches(key_set(jwk("rsa", rsa_key())))
    keys = KeySet(fetches, KeyTiming(refresh=0.01, cool_down=0.01, at_start=0.05))
    await run(keys)
    fetches.held = asyncio.Event()
    await fetches.reach(1)
    assert keys.get("rsa") is not None
    assert keys.get("new") is None
    fetches.held.set()


async def test_the_start_waits_a_while_for_keys_and_then_goes_on(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    fetches = Fetches(b"")
    fetches.held = asyncio.Event()
    keys = KeySet(fetches, KeyTiming(at_start=0.01))
    await run(keys)
    assert keys.get("rsa") is None
    assert "the issuer's keys are not loaded yet" in caplog.text


async def test_a_key_that_the_issuer_took_back_is_gone_at_once(run: Running) -> None:
    fetches = Fetches(key_set(jwk("rsa", rsa_key()), jwk("ec", ec_key())))
    keys = KeySet(fetches, QUICK)
    await run(keys)
    before = keys.generation
    fetches.answer = key_set(jwk("ec", ec_key()))
    await fetches.reach(fetches.count + 2)
    assert keys.get("rsa") is None
    assert keys.get("ec") is not None
    assert keys.generation == before + 1
