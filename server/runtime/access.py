"""Access to the API as the settings configure it: closed unless they say otherwise.

`read_access` checks everything before a port is opened and raises ConfigError;
`Access.refreshing_keys` fetches the issuer's keys while calls are served.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import grpc

from dispatcher.tasks import in_background
from server.api.tls import ServerTls, TlsFiles
from server.auth import Authenticator, BadFile, KeySet
from server.auth.jwt_verifier import JwtVerifier
from server.auth.oidc_discovery import Issuer
from server.auth.tokens_file import TokensFile
from server.config import ConfigError, Settings, split_address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """How callers are authenticated, whether connections use TLS, and whether reflection is served."""

    authenticator: Authenticator
    tls: ServerTls | None
    reflection: bool
    keys: KeySet | None

    @asynccontextmanager
    async def refreshing_keys(self) -> AsyncIterator[None]:
        """Refresh the issuer's keys; enter the block when they are there, or have taken too long."""
        if self.keys is None:
            yield
            return
        async with in_background(self.keys.run(), "issuer's keys"):
            await self.keys.first()
            yield

    @property
    def credentials(self) -> grpc.ServerCredentials | None:
        """The TLS credentials; None for plain text."""
        return self.tls.credentials() if self.tls else None


def read_access(settings: Settings) -> Access:
    """Return what the settings configure. Raise ConfigError with a sentence for each problem."""
    problems = _incomplete(settings)
    if problems:
        raise ConfigError(problems)
    try:
        tls = ServerTls(files) if (files := _tls_files(settings)) else None
        tokens = TokensFile(settings.tokens_file) if settings.tokens_file else None
    except BadFile as error:
        raise ConfigError([str(error)]) from None
    keys = jwts = None
    if settings.oidc_issuer and settings.oidc_audience:
        keys = KeySet(Issuer(settings.oidc_issuer, settings.oidc_jwks_url).fetch_keys)
        jwts = JwtVerifier(settings.oidc_issuer, settings.oidc_audience, keys)
    authenticator = Authenticator(tokens, jwts, certificates=settings.tls_client_ca_file is not None)
    loopback = is_loopback(settings.listen)
    _check_exposure(settings, authenticator, loopback)
    _warn(settings, authenticator, loopback)
    reflection = settings.reflection == "on" or (settings.reflection == "auto" and loopback)
    return Access(authenticator, tls, reflection, keys)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach `HOST:PORT`. A name other than localhost may be anything."""
    host = split_address(address)[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _incomplete(settings: Settings) -> list[str]:
    """Return a sentence for each setting whose other half is missing."""
    pairs = (
        ("MAILING_TLS_CERT_FILE", settings.tls_cert_file, "MAILING_TLS_KEY_FILE", settings.tls_key_file),
        ("MAILING_TLS_KEY_FILE", settings.tls_key_file, "MAILING_TLS_CERT_FILE", settings.tls_cert_file),
        ("MAILING_TLS_CLIENT_CA_FILE", settings.tls_client_ca_file, "MAILING_TLS_CERT_FILE", settings.tls_cert_file),
        ("MAILING_OIDC_ISSUER", settings.oidc_issuer, "MAILING_OIDC_AUDIENCE", settings.oidc_audience),
        ("MAILING_OIDC_AUDIENCE", settings.oidc_audience, "MAILING_OIDC_ISSUER", settings.oidc_issuer),
        ("MAILING_CONSOLE_CLIENT_ID", settings.console_client_id, "MAILING_OIDC_ISSUER", settings.oidc_issuer),
        ("MAILING_OIDC_JWKS_URL", settings.oidc_jwks_url, "MAILING_OIDC_ISSUER", settings.oidc_issuer),
    )
    return [
        f"{given} needs {other}, which is not set." for given, value, other, missing in pairs if value and not missing
    ]


def _tls_files(settings: Settings) -> TlsFiles | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def _check_exposure(settings: Settings, authenticator: Authenticator, loopback: bool) -> None:
    if authenticator.open and not loopback and not settings.insecure:
        raise ConfigError(
            [
                "Without authentication the service listens on loopback only, and MAILING_LISTEN is "
                f"{settings.listen}: set MAILING_TOKENS_FILE (see `mailing-server tokens create`), MAILING_OIDC_ISSUER "
                "or MAILING_TLS_CLIENT_CA_FILE, or give --insecure to let everybody in who can reach it."
            ]
        )
    console = settings.console_listen
    if authenticator.open and console != "off" and not is_loopback(console) and not settings.insecure:
        raise ConfigError(
            [
                "Without authentication the console listens on loopback only, and MAILING_CONSOLE_LISTEN is "
                f"{console}: set MAILING_TOKENS_FILE or MAILING_OIDC_ISSUER, or give --insecure to let everybody in."
            ]
        )
    if settings.channelz_listen != "off" and not is_loopback(settings.channelz_listen):
        # It authenticates nobody, and shows everybody who is connected.
        raise ConfigError([f"MAILING_CHANNELZ_LISTEN should be on loopback, not {settings.channelz_listen}."])


def _warn(settings: Settings, authenticator: Authenticator, loopback: bool) -> None:
    """Log a warning for each dangerous setting that was chosen."""
    if not loopback and authenticator.open:
        log.warning(
            "INSECURE: everybody who can reach %s may read and change everything, as --insecure allows", settings.listen
        )
    elif not loopback and settings.tls_cert_file is None:
        log.warning(
            "tokens travel in plain text to %s: set MAILING_TLS_CERT_FILE unless a proxy does TLS before it",
            settings.listen,
        )
    if authenticator.certificates_may_all:
        log.warning(
            "every certificate of %s may do everything: list the allowed ones with their scopes in MAILING_TOKENS_FILE",
            settings.tls_client_ca_file,
        )
    keys_from = settings.oidc_jwks_url or settings.oidc_issuer or ""
    if keys_from.startswith("http://"):
        log.warning("the issuer's keys come in plain text from %s: anybody in between can replace them", keys_from)
