"""How a sender trusts an endpoint: certificates are verified, always, and TLS is 1.2 or newer."""

from __future__ import annotations

import ssl

from dispatcher.model.endpoints import Endpoint


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return a context that trusts the CAs of `endpoint.ca_file`, without one those of the system.

    Raise ValueError for a file that is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"endpoint {endpoint.name!r}: ca_file {endpoint.ca_file!r}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
