"""A rolling upgrade: the last release beside this one, through the migrations and the middle of a mailing.

The last release comes out of git: what PREVIOUS_RELEASE names, the newest tag or, before there is one, the commit
before the newest migration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest

from tests.e2e.conftest import Endpoint, environment
from tests.faults.conftest import StartService
from tests.faults.mailings import COUNT, finish, prepare
from tests.support.eventually import eventually_sync
from tests.support.project import ROOT


def _git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, check=False).stdout


def _before_the_newest_migration() -> str | None:
    """Return the commit whose schema is one version back; None where the history does not reach so far."""
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", "server/storage/migrations").decode().strip()
    return _git("rev-parse", "--verify", "--quiet", f"{added}^").decode().strip() or None


@pytest.fixture
def last_release(tmp_path: Path) -> Path:
    """Return a folder with the program of the last release."""
    tags = _git("tag", "--list", "v*", "--sort=-v:refname").decode().split()
    name = os.environ.get("PREVIOUS_RELEASE") or next(iter(tags), None) or _before_the_newest_migration()
    if name is None:
        pytest.skip("no release is tagged here, the history is cut off, and PREVIOUS_RELEASE names none")
    with tarfile.open(fileobj=BytesIO(_git("archive", name))) as tree:
        tree.extractall(tmp_path / "last", filter="data")
    return tmp_path / "last"


def test_the_last_release_runs_beside_this_one(
    start_service: StartService, endpoint: Endpoint, empty_dsn: str, last_release: Path
) -> None:
    """It starts the mailing; this one migrates in the middle and ends it, and nobody gets a message twice."""
    paths = f"{last_release}{os.pathsep}{last_release / 'clients' / 'python'}"
    older = start_service(folder=last_release, MAILING_DSN=empty_dsn, PYTHONPATH=paths)
    mailing = prepare(older.client, max_rate=COUNT / 20)
    eventually_sync(lambda: len(endpoint.received()) > COUNT // 20)
    newer = start_service(MAILING_DSN=empty_dsn)
    before = len(endpoint.received())
    assert before < COUNT
    ids = finish(newer.client, mailing)
    assert Counter(one["id"] for one in endpoint.received()) == dict.fromkeys(ids, 1)
    assert older.client.get_mailing(mailing).id == mailing  # it still answers
    assert older.stop() == 0
    assert [one for one in _findings(empty_dsn) if not one["found"].endswith("entries are missing")] == []


def _findings(dsn: str) -> list[dict[str, str]]:
    """Return what verify finds. Numbers are missing where 0.1.0 gave some to settlements that settled nothing."""
    verify = [sys.executable, "-m", "mailing.cli", "verify", "--json"]
    verified = subprocess.run(verify, env=environment(MAILING_DSN=dsn), capture_output=True, check=False)
    findings: list[dict[str, str]] = json.loads(verified.stdout)["findings"]
    return findings
