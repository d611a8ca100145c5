"""How endpoints are trusted: one context for all senders of an endpoint, and names where names belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from dispatcher.delivery.http1.tls import tls_context
from dispatcher.model.endpoints import Endpoint


def endpoint(ca_file: Path) -> Endpoint:
    return Endpoint(name="one", url="https://localhost/", token="", ca_file=str(ca_file))


def test_a_context_is_made_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    """Fails when every test message reads the authorities, which takes the loop a tenth of a second."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    first = tls_context(endpoint(path))
    assert tls_context(endpoint(path)) is first
    trustme.CA().cert_pem.write_to_path(path)
    os.utime(path, (1, 1))
    assert tls_context(endpoint(path)) is not first


def test_a_common_name_is_not_taken_for_a_host(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    assert not tls_context(endpoint(path)).hostname_checks_common_name


def test_a_file_that_is_missing_or_bad_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(ValueError, match=name):
            tls_context(endpoint(tmp_path / name))
