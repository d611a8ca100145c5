"""The console beside the API in one process, or alone against a service elsewhere.

Makes the console's options from the settings. Its packages are loaded only where it is switched on. Beside the API it
calls it over a Unix socket of the process's own, so that it needs neither certificates nor a port.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from server.api import ApiServer
from server.config import DEFAULT_ADMIN_LISTEN, ConfigError, Settings
from server.runtime.access import is_loopback
from server.runtime.lifecycle import ServiceError

if TYPE_CHECKING:
    from server.console import ConsoleOptions

_EXTRA = "MAILING_CONSOLE_LISTEN needs the console: pip install 'mailing-server[console]'."


class InnerSocket:
    """A Unix socket that only this process's user can reach, for the time of the service."""

    def __init__(self, api: ApiServer, stack: AsyncExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailing-console-"))
        self._path = Path(folder, "api")
        api.bind_inside(str(self._path))

    @property
    def address(self) -> str:
        """The address for gRPC."""
        return f"unix:{self._path}"


def console_options(settings: Settings, address: str, credentials: grpc.ChannelCredentials | None) -> ConsoleOptions:
    """Return what the settings say of the console. Raise ConfigError where its packages are missing."""
    try:
        from server.console import ConsoleOptions, OidcOptions
    except ImportError as error:
        raise ConfigError([_EXTRA]) from error
    oidc = None
    if settings.console_client_id and settings.oidc_issuer:
        secret = settings.console_client_secret
        oidc = OidcOptions(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience or "",
            client_id=settings.console_client_id,
            client_secret=secret.get_secret_value() if secret else "",
            scopes=settings.console_scopes,
        )
    return ConsoleOptions(
        listen=settings.console_listen,
        address=address,
        credentials=credentials,
        everybody=is_loopback(settings.console_listen) or settings.insecure,
        public_url=settings.console_url or "",
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        secret=settings.console_secret.get_secret_value() if settings.console_secret else "",
        session_hours=settings.console_session_hours,
        oidc=oidc,
        metrics_url=""
        if settings.admin_listen == "off"
        else f"http://{settings.admin_listen or DEFAULT_ADMIN_LISTEN}/metrics",
    )


def console_alone(settings: Settings, address: str, tls: bool, ca_file: Path | None) -> ConsoleOptions:
    """Return the options of a console for the service at `address`. Raise ConfigError."""
    if settings.console_listen == "off":
        raise ConfigError(["--listen or MAILING_CONSOLE_LISTEN should be where to serve, such as 127.0.0.1:8400."])
    try:
        authority = ca_file.read_bytes() if ca_file else None
    except OSError as error:
        raise ConfigError([f"--ca-file {ca_file} cannot be read: {error.strerror}."]) from error
    credentials = grpc.ssl_channel_credentials(authority) if tls else None
    # Metrics of a service elsewhere are elsewhere, too.
    return replace(console_options(settings, address, credentials), metrics_url="")


@asynccontextmanager
async def serving_console(options: ConsoleOptions | None) -> AsyncIterator[str]:
    """Serve the console inside the block, if there are options, and lend its address for browsers."""
    if options is None:
        yield ""
        return
    from server.console import CannotOpenConsole, open_console

    try:
        async with open_console(options) as url:
            yield url
    except CannotOpenConsole as error:
        raise ServiceError(str(error)) from error
