"""The example in Rust is built from the contract and follows a mailing of a real service to its end."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.clients.languages import UNREACHED
from tests.e2e.conftest import EXAMPLES, Cli


def has_rust() -> bool:
    """Return whether cargo runs: rustup's needs a toolchain, which it looks for in the home directory."""
    return (
        shutil.which("cargo") is not None
        and subprocess.run(["cargo", "--version"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not has_rust(), reason="this machine has no Rust")
def test_the_example_in_rust_sees_its_messages_delivered(cli: Cli) -> None:
    fetch = subprocess.run(["cargo", "fetch", "--locked"], cwd=EXAMPLES / "rust", capture_output=True, text=True)
    if fetch.returncode and UNREACHED.search(fetch.stderr):
        pytest.skip(f"what the example needs cannot be fetched here: {fetch.stderr.splitlines()[-1]}")
    run = ["cargo", "run", "--quiet", "--locked", "--", f"http://{cli.address}"]
    ended = subprocess.run(run, cwd=EXAMPLES / "rust", env=os.environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, *changes = ended.stdout.splitlines()
    assert first == "mailing 1 to 2 clients"
    assert len(changes) == 2
    assert all(line.endswith(" STATUS_DELIVERED") for line in changes)
