"""TLS of the API: certificate, key and the authority of callers, from files that may change.

New connections get what the files hold at that moment; those that went bad, or are just being
written, change nothing, and the log says so. gRPC takes TLS 1.2 and 1.3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from server.auth import BadFile
from server.auth.watched_file import FileWatch, read_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: our certificate chain, its key, and the authority callers must have their certificates from."""

    certificate: Path
    key: Path
    client_authority: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All there are."""
        return (self.certificate, self.key, *([self.client_authority] if self.client_authority else ()))


class ServerTls:
    """What is in the files now. Raises BadFile when it cannot be used at first."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._watch = FileWatch(*files.paths)
        self._first = _configuration(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._first,
            self._changed,  # type: ignore[arg-type]  # None, for no change, is missing in its type
            require_client_authentication=self._files.client_authority is not None,
        )
        return made

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the files as they are now; gRPC asks at every handshake, in a thread of its own."""
        if not self._watch.changed():
            return None
        try:
            fresh = _configuration(self._files)
        except BadFile as error:
            _log.error("TLS stays as it was: %s", error)
            return None
        _log.info("TLS has a new certificate from %s", self._files.certificate)
        return fresh


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    chain, key = read_file(files.certificate), read_file(files.key)
    certificate = _certificates(files.certificate, chain)[0]
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        raise BadFile(f"{files.key} is encrypted: the service cannot ask for its password.") from None
    except ValueError:
        raise BadFile(f"{files.key} holds no private key in PEM form.") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise BadFile(f"{files.key} is not the key of the certificate in {files.certificate}.")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        _log.warning(
            "the certificate in %s is valid from %s to %s, which is not now",
            files.certificate,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
    authority = None
    if files.client_authority is not None:
        authority = read_file(files.client_authority)
        _certificates(files.client_authority, authority)
    return grpc.ssl_server_certificate_configuration([(key, chain)], authority)


def _certificates(path: Path, data: bytes) -> list[Certificate]:
    try:
        return load_pem_x509_certificates(data)
    except ValueError:
        raise BadFile(f"{path} holds no certificate in PEM form.") from None
