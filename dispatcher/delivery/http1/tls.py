"""How a sender trusts an endpoint: certificates are verified, always, and TLS is 1.2 or newer."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from dispatcher.model.endpoints import Endpoint


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return a context that trusts the CAs of `endpoint.ca_file`, without one those of the system.

    Raise ValueError for a file that is missing or holds no certificate.
    """
    try:
        changed_at = os.stat(endpoint.ca_file).st_mtime_ns if endpoint.ca_file else 0
        return _context(endpoint.ca_file, changed_at)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"endpoint {endpoint.name!r}: ca_file {endpoint.ca_file!r}: {error}") from None


@lru_cache(maxsize=64)
def _context(ca_file: str | None, changed_at: int) -> ssl.SSLContext:
    """Make a context, once for each state of a file: reading the authorities of a system takes a tenth of a second."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context
