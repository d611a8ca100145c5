"""Certificates for the API and its callers, as files that can be changed."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import trustme

from server.api.tls import TlsFiles


class TlsFolder:
    """PEM files of an authority and of what it issued."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.files = TlsFiles(folder / "tls.pem", folder / "tls.key")
        self.renew()

    def renew(self) -> None:
        """Write a new certificate for the service, and its key."""
        self.write(self.authority.issue_cert("localhost", "127.0.0.1"))

    def write(self, leaf: trustme.LeafCert) -> None:
        self.files.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        self.files.key.write_bytes(leaf.private_key_pem.bytes())

    def caller(
        self, *names: str, authority: trustme.CA | None = None, common_name: str | None = None
    ) -> tuple[bytes, bytes]:
        """Return chain and key of a caller with these names."""
        leaf = (authority or self.authority).issue_cert(*names, common_name=common_name)
        return b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()

    def handshake(self, port: int, *versions: ssl.TLSVersion) -> tuple[str | None, bytes | None]:
        """Shake hands by one of these versions of TLS; return it and the service's certificate."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.set_alpn_protocols(["h2"])
        if versions:
            context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would refuse the old ones
            context.minimum_version, context.maximum_version = versions[0], versions[-1]
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.version(), secure.getpeercert(binary_form=True)
