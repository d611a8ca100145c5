"""Finds out whether a service that does not answer plain text answers with TLS."""

from __future__ import annotations

import socket
import ssl

_SECONDS = 2.0


def answers_with_tls(address: str) -> bool:
    """Return whether "host:port" begins a TLS handshake; False for anything that cannot be found out."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        # An alert, such as one that asks for a certificate, is TLS; an answer in plain text is not.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False
