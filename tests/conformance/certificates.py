"""Certificates for endpoints, by what is wrong with them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme


class Certificates:
    """Server contexts by name: `good`, `other_name`, `expired`, `unknown`. All should be of the CA in `ca_file`."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        self.ca_file = str(folder / "ca.pem")
        ca.cert_pem.write_to_path(self.ca_file)
        self._leaves = {
            "good": ca.issue_cert("localhost", "127.0.0.1"),
            "other_name": ca.issue_cert("elsewhere.example"),
            "expired": ca.issue_cert("localhost", not_before=long_ago, not_after=long_ago.replace(year=2021)),
            "unknown": trustme.CA().issue_cert("localhost"),
        }

    def __getitem__(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._leaves[name].configure_cert(context)
        return context
