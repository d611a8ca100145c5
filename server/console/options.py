"""What a console is started with: small frozen values, made by the code that starts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """The client of an OIDC issuer: authorization code with PKCE. `audience` is that of the API."""

    issuer: str
    audience: str
    client_id: str
    client_secret: str = ""
    scopes: str = "openid profile"


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """Where the console listens, which service it shows, and how people sign in.

    `address` is the service's, in gRPC's form. With `everybody` anybody who reaches the console may use it with the
    rights that the API gives to callers without credentials. `public_url` is how browsers reach the console, for
    redirects and cookies. `secret` encrypts sessions; empty: a random one, so that a restart signs everybody out.
    """

    listen: str
    address: str
    credentials: grpc.ChannelCredentials | None = None
    everybody: bool = False
    public_url: str = ""
    certificate: Path | None = None
    key: Path | None = None
    secret: str = ""
    session_hours: float = 12.0
    oidc: OidcOptions | None = None
    metrics_url: str = ""

    @property
    def secure(self) -> bool:
        """Whether browsers speak TLS to the console, itself or a proxy before it."""
        return self.certificate is not None or self.public_url.startswith("https://")
