"""The console in the browser: server-rendered pages over the public gRPC API.

It is a client like any other: every read and every change is a call of mailing.v1 with the credentials
of the person who is signed in, so scopes and masked phones hold without a rule of its own. It knows
neither the database nor the engine. Loaded only where it is switched on: its packages are an extra.
"""

from server.console.listener import CannotOpenConsole, open_console
from server.console.options import ConsoleOptions, OidcOptions

__all__ = ["CannotOpenConsole", "ConsoleOptions", "OidcOptions", "open_console"]
