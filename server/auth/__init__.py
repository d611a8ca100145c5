"""Authentication: credentials in, a Principal out.

Owns the static tokens, the tokens of an OIDC issuer with the keys behind them, and the principals of
client certificates. Knows neither gRPC nor which call needs which scope. A rejected caller gets
no reason; the log has it, and never with a credential in it.
"""

from server.auth.authenticator import Authenticator
from server.auth.jwks import KeySet, KeyTiming
from server.auth.watched_file import BadFile

__all__ = ["Authenticator", "BadFile", "KeySet", "KeyTiming"]
