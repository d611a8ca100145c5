"""Certificates, and every sender on every loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.conformance.certificates import Certificates
from tests.conformance.senders import CONTENDERS, LOOPS, Contender


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes through the proxy of whoever runs it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=CONTENDERS)
def contender(request: pytest.FixtureRequest) -> Contender:
    """Each sender in turn."""
    return CONTENDERS[request.param]


@pytest.fixture(params=[f"fast-{loop}" for loop in LOOPS])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a case of the fast sender alone, on each loop."""
    return CONTENDERS[request.param].run
